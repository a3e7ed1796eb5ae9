//! Actions to requests, answers to outcomes. `client` is the one place that sends.

pub mod aadsts;
mod address;
mod answer;
mod assertion;
pub mod auth;
pub mod client;
#[cfg(test)]
mod client_tests;
mod conn;
pub mod entity;
pub mod examine;
mod leave;
pub mod mail;
#[cfg(test)]
mod mail_fault_tests;
#[cfg(test)]
mod mail_tests;
mod multipart;
mod native;
#[cfg(test)]
mod odd_tests;
mod pages;
pub mod rate;
#[cfg(test)]
mod read_tests;
mod redact;
pub mod request;
pub mod teams;
pub mod vault;
mod web;
mod wire;

pub use client::{Client, Reply};
