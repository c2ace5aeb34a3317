//! The server as a whole, asked without sockets.

mod cbor;
mod certificates;
mod conversion;
mod custom;
mod harness;
mod hook;
mod hostile;
mod limits;
mod malformed;
mod openapi;
mod pages;
mod proxied;
mod quota;
mod rights;
mod services;
mod wire;
