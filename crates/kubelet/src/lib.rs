//! The node agent: pods' lifecycle, probes, volumes, node status, and the node API.
//!
//! One actor per pod turns the API's wish and the runtime's facts into actions (`pod`); what to do is
//! planned by pure functions, what a container looks like to the runtime is computed by pure
//! functions too (`spec`). The crate speaks the CRI's types through `runtime`'s traits and the API
//! through `client`; it knows neither which runtime nor which network serves it.

mod admission;
mod beneath;
mod config;
mod exec;
mod hooks;
mod image_volumes;
mod images;
mod intake;
mod kubelet;
mod logs;
mod node;
mod objects;
mod plugins;
mod pod;
mod probe;
mod psi;
mod rates;
mod runtime_class;
mod server;
mod spec;
mod status;
mod thresholds;
mod upkeep;
mod userns;
mod volumes;

pub use config::{
    Authorizer, Deps, Dialer, KubeletConfig, NodeCgroups, NodeUser, PlacementConfig, PlainDialer,
    ReservedCgroup, StaticPods, SystemMasters,
};
pub use images::ProviderFiles;
pub use kubelet::Kubelet;
pub use node::Capacity;
pub use node::shutdown::{LogindPlaces, ShutdownPeriod, periods as shutdown_periods};
pub use server::{ApiReviews, TlsError, tls_config};
pub use thresholds::{Amount, EvictionConfig, Signal, Thresholds};
