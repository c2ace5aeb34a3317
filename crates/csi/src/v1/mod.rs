//! Messages of the package `csi.v1` (Container Storage Interface 1.12), by their field numbers. The service
//! `SnapshotMetadata` is left out: nothing in Kubernetes itself calls it.

mod controller;
mod group;
mod identity;
mod node;
mod secret;
mod snapshot;
mod volume;

pub use controller::*;
pub use group::*;
pub use identity::*;
pub use node::*;
pub use secret::{Secret, secrets};
pub use snapshot::*;
pub use volume::*;

/// A point in time (`google.protobuf.Timestamp`), since 1970.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, prost::Message)]
pub struct Timestamp {
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

#[cfg(test)]
mod tests;
