//! The client against servers on loopback, and against the objects that servers keep.

mod decode;
mod https;
mod typed;
