//! The product as a user sees it: a real cluster, real containers, a real kubectl.

mod cluster;
mod harness;
