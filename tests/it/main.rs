//! All integration tests, in one binary.

mod cases;
mod sandbox;
mod shipped;
