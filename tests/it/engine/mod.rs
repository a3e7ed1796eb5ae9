//! The engine carried by a second host: what each kind of step does, what outcomes lead to, and what holds for all flows.

mod host;
mod letters;
mod outcomes;
mod programs;
mod properties;
mod steps;
