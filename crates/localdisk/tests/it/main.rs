//! The driver behind its socket, on loop devices and mounts of this machine (root is needed). Everything is
//! made below a directory of the test's own, and gone when it ends.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod refused;
mod rig;
mod snapshots;
mod volumes;
