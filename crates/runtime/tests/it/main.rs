//! Real containers: needs root, a kernel with overlayfs, and Debian's busybox-static.

mod containers;
mod harness;
mod restarts;
mod streams;
