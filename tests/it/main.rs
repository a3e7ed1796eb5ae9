//! All integration tests, in one binary.

mod cases;
mod codes;
mod sandbox;
mod shipped;
mod smtp;
