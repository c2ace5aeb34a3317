//! Admission: what happens to a request between decoding and storing.
//!
//! [`Chain`] runs the plugins; the cluster is read through [`Cluster`]. Decisions that need nothing but
//! objects are pure functions in modules of their own ([`limits`], [`pod_security`], [`quota`]).
//! [`expressions`] evaluates CEL for webhooks and policies, [`matching`] decides which requests these look at,
//! [`policies`] are the admission policies themselves, [`webhooks`] the admission webhooks.

mod attributes;
mod chain;
mod config;
#[cfg(test)]
mod fakes;
mod figures;
mod lru;
mod plugin;
mod plugins;
mod reinvocation;
mod versions;

pub mod expressions;
pub mod limits;
pub mod matching;
pub mod node_labels;
pub mod pod_security;
pub mod policies;
pub mod quota;
pub mod webhooks;

pub use attributes::{Attributes, BoxFuture, Cluster, Gvr, Operation};
pub use chain::Chain;
pub use config::{Configuration, Selection};
pub use figures::figures;
pub use plugin::{Decision, Plugin, Verdict};
pub use plugins::{Reach, Setup};
pub use reinvocation::Reinvocation;
pub use versions::Versions;
