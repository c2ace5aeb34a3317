//! The components under upstream's names, with their common flags; unknown flags are refused.

pub(crate) mod apiserver;
pub(crate) mod component;
pub(crate) mod controller_manager;
mod extender;
mod health;
pub(crate) mod kube_proxy;
mod kubeconfig;
pub(crate) mod kubelet;
pub(crate) mod scheduler;
