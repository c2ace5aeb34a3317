//! The pod network of a node, and the kernel-facing tools the network crates share.
//!
//! What it does: network namespaces ([`netns`]), links, addresses and routes by netlink
//! ([`netlink`]), an nf_tables encoder ([`nft`]), the pods' bridge and addresses ([`pod`], [`ipam`]),
//! the wire between several nodes on one machine ([`fabric`]) and their way out ([`egress`]).
//!
//! Why so: everything is a blocking exchange of one or two system calls, so the interface is plain
//! calls; an async caller wraps them in `spawn_blocking`. No external program is ever run.
//!
//! What it does not do: it knows no Services, no Pods as API objects, no HTTP.

pub mod egress;
pub mod fabric;
pub mod ipam;
pub mod netlink;
pub mod netns;
pub mod nft;
pub mod pod;
pub mod sysctl;

pub use egress::{EgressConfig, EgressError, EgressNat};
pub use fabric::{Fabric, FabricConfig, FabricError, Uplink};
pub use ipam::{Ipam, IpamError};
pub use netns::{NetNs, NetNsError, PinDir};
pub use pod::{Attachment, PodNetwork, PodNetworkConfig, PodNetworkError};

pub use ipnet;
