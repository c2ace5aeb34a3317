//! The volume plugins of the tree, one file a plugin. CSI is a module of its own.

pub(super) mod empty_dir;
pub(super) mod host_path;
pub(super) mod local;
pub(super) mod nfs;
pub(super) mod retired;
pub(super) mod written;
