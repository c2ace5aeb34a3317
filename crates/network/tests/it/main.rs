//! The pod network against the real kernel, in namespaces made and removed by each test. Needs root.

// Helpers outside of `#[test]` functions panic too: that is how a test fails.
#![allow(clippy::unwrap_used)]

mod egress;
mod pods;
mod world;
