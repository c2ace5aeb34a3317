//! What the kernel is asked for: loop devices, mounts, and orders to file systems.

mod ioctl;
pub(crate) mod loops;
pub(crate) mod mounts;

pub(crate) use ioctl::{device_size, freeze, grow_ext4, thaw};
