//! Service load balancing of one node.
//!
//! What it does: takes Services and EndpointSlices ([`Change`]), plans the rule set they mean
//! ([`plan`], pure), and keeps the kernel's nf_tables table `trireme` equal to it ([`Proxy`]).
//! Besides: stale UDP connections are removed ([`conntrack`]), health check node ports are served
//! ([`health`]), and node ports can be offered on another network through sockets ([`userspace`]).
//!
//! Why so: every service is one entry in a verdict map and one chain, so a packet costs the same
//! with ten services or ten thousand, and a change rewrites the chains of the changed service only.
//!
//! What it does not do: it knows no API server, no pods' lifecycle, no network policy (a policy
//! engine gets a table of its own, hooked in front of or behind this one by priority).

pub mod conntrack;
mod encode;
pub mod fragment;
pub mod health;
mod layout;
pub mod model;
pub mod plan;
mod proxy;
mod select;
mod table;
pub mod userspace;

pub use fragment::HealthCheck;
pub use health::HealthServer;
pub use model::{Change, HostPort, Protocol, ServiceKey};
pub use plan::PlanConfig;
pub use proxy::{Proxy, ProxyConfig, ProxyError, SyncReport};
pub use userspace::Forwarder;
