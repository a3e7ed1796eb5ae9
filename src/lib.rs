//! watchfloor runs security-operations flows: YAML files in git that say when, if and then.
//!
//! Layers, later ones may use earlier ones (see ARCHITECTURE.md; a test reads the `use` lines):
//! value, id, error, fail, clock · diag · yaml · triage · suppress · catalog · expr · flow · check · engine · journal · config · guard · connector ·
//! trigger · sandbox · worker · console · cli.

pub mod catalog;
pub mod check;
pub mod cli;
pub mod clock;
pub mod config;
pub mod connector;
pub mod console;
pub mod diag;
pub mod engine;
pub mod error;
pub mod expr;
pub mod fail;
pub mod flow;
pub mod guard;
pub mod id;
pub mod journal;
pub mod sandbox;
pub mod suppress;
pub mod triage;
pub mod trigger;
pub mod value;
pub mod worker;
pub mod yaml;
