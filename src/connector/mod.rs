//! Actions to requests, answers to outcomes. `client` is the one place that sends.

pub mod auth;
pub mod client;
pub mod entity;
pub mod mail;
pub mod rate;
pub mod request;
pub mod teams;

pub use client::{Client, Reply};
