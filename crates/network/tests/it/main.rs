//! The pod network against the real kernel, in namespaces made and removed by each test. Needs root.

mod egress;
mod pods;
mod world;
