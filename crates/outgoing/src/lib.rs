//! What every outgoing request has in common: name resolution, TCP, TLS, proxies, deadlines.
//!
//! Names are resolved by our own resolver, never by `getaddrinfo`, which a static binary cannot use.
//! Connecting has a deadline, and a peer that lost power is noticed: the kernel asks silent TCP peers,
//! HTTP/2 connections ping, and a body that stops arriving is an error ([`ReadIdle`]).
//!
//! This crate does not know what is asked, nor of whom. (Its name is not `http`, because nearly every
//! crate also depends on that crate of crates.io.)

mod connector;
mod dial;
mod document;
mod idle;
mod proxy;
mod resolve;
mod stream;
mod trust;

pub use connector::{Connector, pool_builder};
pub use dial::{configure, connect};
pub use document::document;
pub use idle::{Idle, ReadIdle};
pub use proxy::{Proxy, ProxyError};
pub use resolve::resolve;
pub use stream::Stream;
pub use trust::{Identity, Trust, client_config, machine_roots};

/// Longest that a TCP connection may take to come about, names included (client-go's dialer).
pub const DIAL_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);
/// Longest that a TLS handshake may take (client-go's `TLSHandshakeTimeout`).
pub const TLS_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

fn timed_out(what: &str) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::TimedOut, what)
}
