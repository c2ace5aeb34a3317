//! The server as a whole, asked without sockets.

mod certificates;
mod custom;
mod harness;
mod limits;
mod malformed;
mod openapi;
mod pages;
mod proxied;
mod quota;
mod rights;
mod services;
mod wire;
