//! The server as a whole, asked without sockets.

mod custom;
mod harness;
mod malformed;
mod proxied;
mod rights;
mod services;
mod wire;
