//! Real containers: needs root, a kernel with overlayfs, and Debian's busybox-static.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod attacks;
mod containers;
mod harness;
mod hostile;
mod oci;
mod oci_streams;
mod pull;
mod registries;
mod restarts;
mod streams;
mod users;
