//! The drivers that have registered on the node.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use csi::Client;
use csi::v1::{NodeGetCapabilitiesRequest, NodeRpcType};
use grpc::{CallError, Code};

/// Major, minor, patch.
pub(super) type Version = (u32, u32, u32);

/// One driver, by its socket.
#[derive(Debug)]
pub(super) struct Driver {
    pub(super) name: String,
    pub(super) endpoint: String,
    pub(super) version: Version,
    pub(super) client: Client,
}

/// By name.
#[derive(Debug, Default)]
pub(super) struct Drivers {
    known: Mutex<HashMap<String, Arc<Driver>>>,
}

impl Drivers {
    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Driver>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, name: &str) -> Result<Arc<Driver>, String> {
        let missing =
            || format!("driver name {name} not found in the list of registered CSI drivers");
        self.known().get(name).cloned().ok_or_else(missing)
    }

    pub(super) fn set(&self, name: &str, endpoint: &str, version: Version) -> Arc<Driver> {
        let driver = Arc::new(Driver {
            name: name.to_owned(),
            endpoint: endpoint.to_owned(),
            version,
            client: Client::new(endpoint),
        });
        self.known().insert(name.to_owned(), driver.clone());
        driver
    }

    pub(super) fn remove(&self, name: &str) {
        self.known().remove(name);
    }
}

/// What a driver's node service can do.
#[derive(Debug, Default)]
pub(super) struct Capabilities(BTreeSet<NodeRpcType>);

impl Capabilities {
    pub(super) async fn of(driver: &Driver) -> Result<Capabilities, String> {
        let asked = driver.client.node_get_capabilities(&NodeGetCapabilitiesRequest {}).await;
        let list = asked.map_err(|e| e.go_text())?.capabilities;
        let kinds = list.into_iter().filter_map(|c| c.rpc).map(|rpc| rpc.kind());
        Ok(Capabilities(kinds.collect()))
    }

    pub(super) fn has(&self, kind: NodeRpcType) -> bool {
        self.0.contains(&kind)
    }
}

/// Whether a call has surely ended: else the driver may still work on it, and nothing may be taken away.
pub(super) fn is_final(error: &CallError) -> bool {
    let open = [
        Code::Canceled,
        Code::DeadlineExceeded,
        Code::Unavailable,
        Code::ResourceExhausted,
        Code::Aborted,
    ];
    match error {
        CallError::Refused { code, .. } => !open.iter().any(|open| *open as u32 == *code),
        _ => false,
    }
}
