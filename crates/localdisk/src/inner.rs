//! What all parts of the driver work on.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Mutex;

use grpc::server::Status;

use crate::errors::{internal, not_found};
use crate::state::{State, Volume};

/// What a driver is made with.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where volumes and snapshots are.
    pub root: PathBuf,
    /// The name of the node, which is its id, too.
    pub node: String,
    /// Volumes that may be published to the node at once; 0 for no limit.
    pub volumes_max: i64,
    /// The version that the driver tells.
    pub version: String,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) state: State,
    /// Volumes, snapshots and names that calls are working on.
    pub(crate) under_way: Mutex<BTreeSet<String>>,
    /// Held while room is looked for and taken.
    pub(crate) room: Mutex<()>,
}

impl Inner {
    pub(crate) fn volume(&self, id: &str) -> Result<Volume, Status> {
        let found = self.state.get(id).map_err(internal("a volume's record cannot be read"))?;
        found.ok_or_else(|| not_found("volume", id))
    }
}

pub(crate) fn volume_claim(id: &str) -> String {
    format!("volume {id}")
}

pub(crate) fn snapshot_claim(id: &str) -> String {
    format!("snapshot {id}")
}
