//! What all controllers of one driver share.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use client::{Client, EventType, Informers, Recorder, Resource, Tasks};
use csi::v1::*;
use grpc::CallError;

use crate::metadata::reference;

/// Between two tries to reach a driver that has not started yet.
const PAUSE: Duration = Duration::from_millis(500);

/// Which driver, and where it is.
#[derive(Debug, Clone)]
pub struct Config {
    /// The driver's name, which storage classes have as their provisioner.
    pub driver: String,
    /// The name of its node.
    pub node: String,
    /// The driver's socket.
    pub socket: PathBuf,
    /// Where objects about the node's capacity are kept.
    pub namespace: String,
    /// How often free capacity is looked at when nothing tells of a change.
    pub capacity_interval: Duration,
}

#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) config: Arc<Config>,
    pub(crate) informers: Informers,
    pub(crate) client: Client,
    pub(crate) csi: Arc<csi::Client>,
    pub(crate) recorder: Recorder,
    /// Where the driver's volumes are.
    pub(crate) topology: Topology,
    /// Whether the driver tells one writer and several on a node apart.
    pub(crate) single_node_multi_writer: bool,
}

impl Context {
    /// Waits until the driver tells what it is.
    pub(crate) async fn of_driver(
        informers: Informers,
        tasks: Tasks,
        config: Arc<Config>,
    ) -> Context {
        let csi = Arc::new(csi::Client::new(config.socket.clone()));
        let (topology, single_node_multi_writer) = loop {
            match about(&csi).await {
                Ok(known) => break known,
                Err(error) => {
                    let error = error.go_text();
                    tracing::debug!(
                        driver = config.driver,
                        error,
                        "the driver does not answer yet"
                    );
                }
            }
            tokio::time::sleep(PAUSE).await;
        };
        let client = informers.client().clone();
        let recorder = Recorder::new(client.clone(), &tasks, &config.driver, &config.node);
        Context { config, informers, client, csi, recorder, topology, single_node_multi_writer }
    }

    pub(crate) fn event<K: Resource>(&self, about: &K, reason: &str, message: impl Into<String>) {
        self.recorder.event(&reference(about), EventType::Normal, reason, message);
    }

    pub(crate) fn warn<K: Resource>(&self, about: &K, reason: &str, message: impl Into<String>) {
        self.recorder.event(&reference(about), EventType::Warning, reason, message);
    }
}

async fn about(csi: &csi::Client) -> Result<(Topology, bool), CallError> {
    let info = csi.node_get_info(&NodeGetInfoRequest {}).await?;
    let all = csi.controller_get_capabilities(&ControllerGetCapabilitiesRequest {}).await?;
    let multi = ControllerRpcType::SingleNodeMultiWriter as i32;
    let has = all.capabilities.iter().filter_map(|c| c.rpc.as_ref()).any(|rpc| rpc.kind == multi);
    Ok((info.accessible_topology.unwrap_or_default(), has))
}
