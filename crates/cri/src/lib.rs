//! The Container Runtime Interface on the wire: a runtime served to others as `runtime.v1` over gRPC.
//!
//! The messages are crate `runtime`'s. Exec, attach and port-forward are answered with a URL of a [`Streaming`]
//! server, which speaks SPDY and WebSocket as the kubelet expects it.

mod server;

pub use server::{Streaming, methods};
