//! Nodes: their objects, leases and heartbeats.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use client::{Action, Client, Error, Informer, Informers, Patch, Queue, Tasks, run_workers};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{Config, plan};

/// Where nodes keep their leases.
const LEASES: &str = "kube-node-lease";
/// Requests under way at once: leases of thousands of nodes are renewed in a few seconds.
const WORKERS: usize = 32;
/// How often a node's status is written though it has not changed (the kubelet's
/// `nodeStatusReportFrequency`).
const STATUS_EVERY: Duration = Duration::from_secs(300);

pub(crate) fn start(client: &Client, informers: &Informers, tasks: &Tasks, config: &Arc<Config>) {
    let this = Nodes {
        client: client.clone(),
        nodes: informers.of(),
        config: config.clone(),
        told: Arc::new(Mutex::new(vec![None; config.nodes as usize])),
    };
    let queue = Queue::new();
    // Spread, so that leases are not renewed all at once.
    for index in 0..config.nodes {
        queue.add_after(index, config.renew_every * index / config.nodes.max(1));
    }
    tasks.required("hollow nodes", async move {
        this.nodes.synced().await;
        let work = move |index: u32| {
            let this = this.clone();
            async move { this.reconcile(index).await }
        };
        run_workers("hollow nodes", queue, WORKERS, work).await;
    });
}

#[derive(Clone)]
struct Nodes {
    client: Client,
    nodes: Informer<Node>,
    config: Arc<Config>,
    /// When each node's status was last written.
    told: Arc<Mutex<Vec<Option<Instant>>>>,
}

fn typed<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("the object was made of its own fields")
}

impl Nodes {
    async fn reconcile(&self, index: u32) -> Result<Action, Error> {
        let name = self.config.name(index);
        match self.nodes.get("", &name) {
            None => self.create(index).await?,
            Some(node) if plan::is_silent(&node) => {
                return Ok(Action::After(self.config.renew_every));
            }
            Some(_) => self.heartbeat(index, &name).await?,
        }
        self.renew(&name).await?;
        Ok(Action::After(self.config.renew_every))
    }

    async fn create(&self, index: u32) -> Result<(), Error> {
        let node: Node = typed(plan::node(&self.config, index));
        match self.client.create("", &node).await {
            // Of an earlier run, and not seen yet.
            Err(error) if error.is_already_exists() => Ok(()),
            other => other.map(drop),
        }
    }

    async fn heartbeat(&self, index: u32, name: &str) -> Result<(), Error> {
        let at = index as usize;
        let told = || self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told()[at].is_some_and(|last| last.elapsed() < STATUS_EVERY) {
            return Ok(());
        }
        let patch = Patch::Strategic(json!({"status": plan::status(&self.config, index)}));
        match self.client.patch_status::<Node>("", name, &patch).await {
            // Deleted: it is made again.
            Err(error) if error.is_not_found() => return Ok(()),
            other => drop(other?),
        }
        told()[at] = Some(Instant::now());
        Ok(())
    }

    async fn renew(&self, name: &str) -> Result<(), Error> {
        let now = format!("{:.6}", Timestamp::now());
        let spec = json!({"holderIdentity": name, "renewTime": now,
            "leaseDurationSeconds": (self.config.renew_every * 4).as_secs()});
        let patch = Patch::Merge(json!({"spec": spec}));
        match self.client.patch::<Lease>(LEASES, name, &patch).await {
            Err(error) if error.is_not_found() => {
                let lease = json!({"metadata": {"name": name, "namespace": LEASES},
                    "spec": spec});
                self.client.create::<Lease>(LEASES, &typed(lease)).await.map(drop)
            }
            other => other.map(drop),
        }
    }
}
