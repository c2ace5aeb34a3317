//! Claims over a real API server in memory, the binder, and the built-in driver behind its socket.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod claims;
mod growth;
mod snapshots;
mod world;
