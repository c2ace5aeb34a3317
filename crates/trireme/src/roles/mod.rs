//! The components under upstream's names, with their common flags; unknown flags are refused.

pub(crate) mod apiserver;
mod audit_flags;
pub(crate) mod certificate_flags;
pub(crate) mod component;
pub(crate) mod controller_manager;
pub(crate) mod cri;
mod extender;
pub(crate) mod gates;
mod health;
pub(crate) mod hollow;
pub(crate) mod kube_proxy;
pub(crate) mod kubelet;
pub(crate) mod scheduler;
