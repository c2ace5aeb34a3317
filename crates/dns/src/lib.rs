//! Cluster DNS: answers cluster names from memory and forwards the rest.
//!
//! What it does: keeps an index of Services, EndpointSlices and pods ([`Index`], fed by
//! [`Change`]s), answers after the DNS specification for Kubernetes ([`answer`], pure), serves UDP
//! and TCP on sockets it is given ([`Server`]), and asks upstreams for other names ([`forward`]).
//!
//! Why so: the answer comes from the process's own memory, so a name is right as soon as the object
//! is seen, and no pod is needed. Sockets are bound by the caller, inside the node's namespace.
//!
//! What it does not do: no recursion of its own, no zone transfer, no DNSSEC signing; it knows no
//! API server and no firewall.

pub mod answer;
pub mod forward;
pub mod model;
pub mod resolv;

mod index;
mod reply;
mod server;

pub use forward::{Forward, ForwardConfig};
pub use index::Index;
pub use model::Change;
pub use server::{Server, ServerConfig};
