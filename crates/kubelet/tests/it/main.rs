//! The agent as a whole, against an API and a runtime that exist only here.

mod api;
mod fake_runtime;
mod lifecycle;
mod real;
mod wire;
