//! All integration tests, in one binary.

mod cases;
mod codes;
mod contract;
mod sandbox;
mod shipped;
mod smtp;
