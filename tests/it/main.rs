//! All integration tests, in one binary.

mod cases;
mod codes;
mod sandbox;
mod sandbox_client;
mod shipped;
mod smtp;
