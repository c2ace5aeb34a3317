//! Admission: what happens to a request between decoding and storing.
//!
//! [`Chain`] runs the plugins; the cluster is read through [`Cluster`]. Decisions that need nothing but
//! objects are pure functions in modules of their own ([`limits`], [`pod_security`], [`quota`]).

mod attributes;
mod chain;
mod plugin;
mod plugins;

pub mod limits;
pub mod node_labels;
pub mod pod_security;
pub mod quota;

pub use attributes::{Attributes, BoxFuture, Cluster, Gvr, Operation};
pub use chain::Chain;
pub use plugin::{Decision, Plugin, Verdict};
