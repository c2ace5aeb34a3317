//! The Kubernetes API as data, and the pure algorithms on it: no I/O, no async, no clock, no threads.

pub mod names;
pub mod object;
pub mod selector;
pub mod status;

pub use object::{Meta, Object, Owner};
pub use status::Status;
