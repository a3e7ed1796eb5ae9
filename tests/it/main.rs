//! All integration tests, in one binary.

mod cases;
mod codes;
mod contract;
mod engine;
mod sandbox;
mod shipped;
mod smtp;
