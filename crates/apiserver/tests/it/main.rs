//! The server as a whole, asked without sockets.

mod cbor;
mod certificates;
mod connections;
mod conversion;
mod custom;
mod escalation;
mod eviction;
mod harness;
mod hook;
mod hostile;
mod identity;
mod impersonation;
mod limits;
mod malformed;
mod node_objects;
mod node_reads;
mod openapi;
mod pages;
mod proxied;
mod quota;
mod reach;
mod rights;
mod services;
mod strategies;
mod websocket;
mod wire;
