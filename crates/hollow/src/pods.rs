//! Pods of hollow nodes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use client::{
    Action, Client, DeleteParams, Error, Informer, Informers, Patch, Queue, Tasks, run_workers,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};

use crate::Config;
use crate::plan::{self, Step};

/// Pods written at once.
const WORKERS: usize = 64;

type Key = (String, String);

pub(crate) fn start(client: &Client, informers: &Informers, tasks: &Tasks, config: &Arc<Config>) {
    let this = Pods {
        client: client.clone(),
        pods: informers.of(),
        nodes: informers.of(),
        config: config.clone(),
        addresses: Arc::default(),
    };
    let queue = Queue::new();
    let (of, keys) = (this.clone(), queue.clone());
    this.pods.on_change(move |change| {
        let pod = change.object();
        if of.index(pod).is_some() && !matches!(change, client::Change::Deleted(_)) {
            let text = |of: &Option<String>| of.clone().unwrap_or_default();
            keys.add((text(&pod.metadata.namespace), text(&pod.metadata.name)));
        }
    });
    // What a silent node left undone is done when it speaks again.
    let (of, keys) = (this.clone(), queue.clone());
    this.nodes.on_change(move |change| {
        let (node, old) = (change.object(), change.old());
        if old.is_some_and(|old| plan::is_silent(old)) && !plan::is_silent(node) {
            for pod in of.pods.list() {
                if node_of(&pod) == node.metadata.name.as_deref() {
                    let text = |of: &Option<String>| of.clone().unwrap_or_default();
                    keys.add((text(&pod.metadata.namespace), text(&pod.metadata.name)));
                }
            }
        }
    });
    tasks.required("hollow pods", async move {
        this.pods.synced().await;
        this.nodes.synced().await;
        let work = move |key: Key| {
            let this = this.clone();
            async move { this.reconcile(key).await }
        };
        run_workers("hollow pods", queue, WORKERS, work).await;
    });
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

#[derive(Clone)]
struct Pods {
    client: Client,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    config: Arc<Config>,
    /// How many addresses were given out.
    addresses: Arc<AtomicU32>,
}

impl Pods {
    fn index(&self, pod: &Pod) -> Option<u32> {
        self.config.index(node_of(pod)?)
    }

    async fn reconcile(&self, (space, name): Key) -> Result<Action, Error> {
        let Some(pod) = self.pods.get(&space, &name) else { return Ok(Action::Done) };
        let Some(index) = self.index(&pod) else { return Ok(Action::Done) };
        let node = node_of(&pod).and_then(|node| self.nodes.get("", node));
        if node.is_some_and(|node| plan::is_silent(&node)) {
            return Ok(Action::Done);
        }
        let now = Timestamp::now();
        let written = match plan::step(&pod, now) {
            Step::Nothing => return Ok(Action::Done),
            Step::Wait(left) => return Ok(Action::After(left)),
            Step::Run => {
                let number = self.addresses.fetch_add(1, Ordering::Relaxed);
                let (address, host) = (plan::pod_address(number), plan::node_address(index));
                self.write(&pod, plan::running(&pod, address, host, now)).await
            }
            Step::End(phase) => self.write(&pod, plan::ended(&pod, phase, now)).await,
            Step::Remove => {
                let uid = pod.metadata.uid.clone();
                let params =
                    DeleteParams { grace_period_seconds: Some(0), uid, ..DeleteParams::default() };
                self.client.delete::<Pod>(&space, &name, &params).await
            }
        };
        match written {
            // Gone, or another pod has its name by now.
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(Action::Done),
            other => other.map(|()| Action::Done),
        }
    }

    async fn write(&self, pod: &Pod, status: Value) -> Result<(), Error> {
        let text = |of: &Option<String>| of.clone().unwrap_or_default();
        let (space, name) = (text(&pod.metadata.namespace), text(&pod.metadata.name));
        let patch =
            Patch::Strategic(json!({"metadata": {"uid": pod.metadata.uid}, "status": status}));
        self.client.patch_status::<Pod>(&space, &name, &patch).await.map(drop)
    }
}
