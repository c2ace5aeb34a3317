//! The built-in CSI driver for a node's own disk: `local.csi.trireme.dev`.
//!
//! A volume is a file (`disk.img`) on the node's disk behind a loop device: with a file system made here
//! ([`ext4`]), or raw for block volumes. This form was chosen over directories with project quotas because it
//! enforces the size on every file system and kernel (quotas need a mount option, and a kernel built with
//! them), because block volumes, snapshots and expansion are then the same thing for all volumes, and because
//! a snapshot is one file. Its price is a second file system between a pod and the disk.
//!
//! What is on disk is the truth: a volume is a directory that was renamed into place when it was whole. Volumes
//! are thin unless asked otherwise (`allocation: thick`), and what all of them may still grow to is kept free:
//! a volume that the disk has no room for is refused when it is made, not when it is full.
//!
//! Work runs on blocking threads and ends though its caller gives up; a second call for the same volume is
//! answered `Aborted` meanwhile, as the specification says.

mod capability;
mod controller;
mod disk;
mod driver;
mod errors;
mod ext4;
mod identity;
mod inner;
mod kernel;
mod node;
mod registration;
mod state;
mod still;
mod uses;

pub use driver::{Driver, methods};
pub use identity::{NAME, TOPOLOGY_KEY};
pub use inner::Config;
pub use registration::registration;
