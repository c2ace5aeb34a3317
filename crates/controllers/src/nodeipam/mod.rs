//! Node IPAM: gives each node its part of the cluster's pod networks (`spec.podCIDRs`).
//!
//! Watches Nodes.

mod plan;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};

use client::run_workers;
use client::{Action, Change, Client, Error, EventType, Informer, Patch, Queue, Recorder};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use serde_json::json;

use self::plan::Pool;
use crate::Context;
use crate::meta::{name, reference};

pub(crate) fn start(context: &Context) {
    let config = &context.config;
    let mut pools = Vec::new();
    for cluster in &config.cluster_cidrs {
        let prefix = match cluster {
            IpNet::V4(_) => config.node_cidr_mask,
            IpNet::V6(_) => config.node_cidr_mask_v6,
        };
        match Pool::new(*cluster, prefix) {
            Some(pool) => pools.push(pool),
            None => {
                tracing::error!(%cluster, prefix, "node networks do not fit into the cluster's")
            }
        }
    }
    // No networks to give: nodes get theirs elsewhere.
    if pools.is_empty() {
        return;
    }
    let this = Ipam {
        client: context.client.clone(),
        recorder: context.recorder("cidrAllocator"),
        nodes: context.informers.of(),
        pools: Arc::new(Mutex::new(pools)),
        queue: Queue::new(),
    };
    let changed = this.clone();
    this.nodes.on_change(move |change| changed.node_changed(change));
    context.tasks.required("node IPAM", this.run());
}

#[derive(Clone)]
struct Ipam {
    client: Client,
    recorder: Recorder,
    nodes: Informer<Node>,
    pools: Arc<Mutex<Vec<Pool>>>,
    queue: Queue<String>,
}

fn networks(node: &Node) -> Vec<IpNet> {
    let all = node.spec.iter().flat_map(|s| s.pod_cidrs.iter().flatten());
    all.filter_map(|text| text.parse().ok()).collect()
}

impl Ipam {
    fn with_pools<T>(&self, with: impl Fn(&mut Pool) -> T) -> Vec<T> {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        pools.iter_mut().map(with).collect()
    }

    fn node_changed(&self, change: &Change<Node>) {
        let node = change.object();
        let have = networks(node);
        if matches!(change, Change::Deleted(_)) {
            self.with_pools(|pool| have.iter().for_each(|n| pool.release(n)));
            return;
        }
        if have.is_empty() {
            self.queue.add(name(&node.metadata).to_owned());
        } else {
            self.with_pools(|pool| have.iter().for_each(|n| pool.occupy(n)));
        }
    }

    async fn run(self) {
        // What nodes have already must be known before anything is given out.
        self.nodes.synced().await;
        let queue = self.queue.clone();
        let work = move |name: String| {
            let this = self.clone();
            async move { this.sync(&name).await }
        };
        run_workers("node IPAM", queue, 1, work).await;
    }

    async fn sync(&self, name: &str) -> Result<Action, Error> {
        let Some(node) = self.nodes.get("", name) else { return Ok(Action::Done) };
        if !networks(&node).is_empty() {
            return Ok(Action::Done);
        }
        let given: Vec<Option<IpNet>> = self.with_pools(Pool::take);
        let outcome = match given.iter().copied().collect::<Option<Vec<IpNet>>>() {
            Some(given) => self.write(&node, &given).await,
            None => {
                let message = format!("Node {name} status is now: CIDRNotAvailable");
                let about = reference(&*node);
                self.recorder.event(&about, EventType::Normal, "CIDRNotAvailable", message);
                Ok(false)
            }
        };
        if !matches!(outcome, Ok(true)) {
            self.with_pools(|pool| given.iter().flatten().for_each(|n| pool.release(n)));
        }
        outcome.map(|_| Action::Done)
    }

    async fn write(&self, node: &Node, given: &[IpNet]) -> Result<bool, Error> {
        let texts: Vec<String> = given.iter().map(ToString::to_string).collect();
        // The uid makes sure it is this node, not a new one of its name.
        let body = json!({
            "metadata": {"uid": node.metadata.uid},
            "spec": {"podCIDR": texts[0], "podCIDRs": texts},
        });
        let patch = Patch::Strategic(body);
        match self.client.patch::<Node>("", name(&node.metadata), &patch).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }
}
