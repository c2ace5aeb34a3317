//! The Container Storage Interface 1.12: messages, a client over a unix socket ([`Client`]), and a table of
//! methods for servers ([`server`]).
//!
//! Messages are written by hand ([`v1`]), so that building needs no `protoc`. Values of secrets are in no
//! message's debug form.

mod client;
pub mod server;
mod service;
pub mod v1;

pub use client::{Client, DEADLINE, Socket};
