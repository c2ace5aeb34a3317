//! The Container Runtime Interface on the wire, both sides: a runtime served to others as `runtime.v1` over gRPC,
//! and a foreign runtime behind its socket ([`Client`]).
//!
//! The messages are crate `runtime`'s. Exec, attach and port-forward are answered with a URL of a [`Streaming`]
//! server, which speaks SPDY and WebSocket as the kubelet expects it.

mod client;
mod server;

pub use client::{Client, check_endpoint};
pub use server::{Streaming, methods};
