//! The components under their original names, with their common flags; unknown flags are refused.

pub(crate) mod apiserver;
