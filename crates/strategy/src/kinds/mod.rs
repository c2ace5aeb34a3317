//! Kinds with hooks of their own.

pub(super) mod definition;
pub(super) mod namespace;
pub(super) mod pod;
pub(super) mod request;
pub(super) mod service;
pub(super) mod small;
