//! Tells what a container is made of.
pub(crate) fn run() {}
