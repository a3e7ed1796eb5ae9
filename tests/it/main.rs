//! All integration tests, in one binary.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by ending")]

mod cases;
mod cel;
mod cli;
mod codes;
mod contract;
mod docs;
mod engine;
mod sandbox;
mod sandbox_client;
mod shipped;
mod smtp;
mod tidy;
