//! All integration tests, in one binary.

mod cases;
mod codes;
mod engine;
mod sandbox;
mod shipped;
mod smtp;
