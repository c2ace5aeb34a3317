//! Kinds of the core group.

pub(crate) mod claim;
pub(crate) mod config;
pub(crate) mod endpoints;
pub(crate) mod event;
pub(crate) mod limits;
pub(crate) mod namespace;
pub(crate) mod node;
pub(crate) mod persistent_volume;
pub(crate) mod pod;
pub(crate) mod qos;
pub(crate) mod service;
