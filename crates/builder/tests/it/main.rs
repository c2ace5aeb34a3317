//! Whole builds: needs root, a kernel with overlayfs, and Debian's busybox-static.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod builds;
mod copies;
mod harness;
mod mounts;
mod refusals;
