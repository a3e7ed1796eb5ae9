//! The engine carried by a second host: what each kind of step does, and what outcomes lead to.

mod host;
mod letters;
mod outcomes;
mod steps;
