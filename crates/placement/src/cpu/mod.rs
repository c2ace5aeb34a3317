//! The CPU manager: containers of guaranteed pods that request whole CPUs get them for themselves.

mod assign;
mod distribute;
mod options;
mod policy;
mod state;

#[cfg(test)]
mod tests;

pub(crate) use options::{CpuOptions, Gates};
pub(crate) use policy::{CpuManager, Settings};
