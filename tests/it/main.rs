//! All integration tests, in one binary.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by ending")]

mod alerts;
mod batch;
mod bin;
mod breaker;
mod cards;
mod cases;
mod cel;
mod cli;
mod codes;
mod commands;
mod confirm;
mod contract;
mod crash;
mod demo;
mod disk;
mod docs;
mod doctor;
mod engine;
mod faults;
mod gates;
mod identity;
mod import;
mod invariants;
mod journals;
mod letters;
mod library;
mod matrix;
mod own;
mod polling;
mod reload;
mod safety;
mod sandbox;
mod sandbox_client;
mod service;
mod shipped;
mod sim;
mod smtp;
mod suppress;
mod tidy;
mod toxics;
mod upkeep;
mod vault;
