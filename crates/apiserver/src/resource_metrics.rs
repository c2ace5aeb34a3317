//! The way of `metrics.k8s.io` to the kubelets.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use store::Store;

use crate::aggregate::Local;
use crate::dialer::NodeDialer;
use crate::node_proxy;

/// Longest wait for one kubelet.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Longest text of one kubelet, in bytes.
const TEXT_MAX: usize = 16 << 20;

/// Where nodes are stored.
pub(crate) const NODES: &str = "/registry/minions/";

/// Kubelets, as the stored nodes say where they are.
pub(crate) struct KubeletFigures {
    store: Store,
    dialer: Arc<dyn NodeDialer>,
}

impl KubeletFigures {
    pub(crate) fn new(store: Store, dialer: Arc<dyn NodeDialer>) -> KubeletFigures {
        KubeletFigures { store, dialer }
    }
}

impl metrics::Kubelets for KubeletFigures {
    fn resources<'a>(
        &'a self,
        node: &'a str,
    ) -> Pin<Box<dyn Future<Output = Result<String, String>> + Send + 'a>> {
        Box::pin(async move {
            let stored = self.store.collection(NODES).and_then(|all| all.get(node));
            let tree = stored.ok_or_else(|| format!("no node {node:?}"))?.to_value();
            // One that is lost would hold up everybody who asks.
            let mut conditions = validation::items(&tree["status"], "conditions");
            if !conditions.any(|c| c["type"] == "Ready" && c["status"] == "True") {
                return Err("the node is not ready".into());
            }
            let text =
                node_proxy::kubelet_text(&*self.dialer, &tree, "/metrics/resource", TEXT_MAX);
            let told = tokio::time::timeout(TIMEOUT, text).await;
            let told = told.unwrap_or_else(|_| Err("no answer in time".into()));
            told.inspect_err(|why| tracing::debug!(node, why, "a node's figures are not known"))
        })
    }
}

/// As discovery and the APIService tell it (metrics-server's priorities).
pub(crate) fn local() -> Local {
    Local {
        group: metrics::GROUP,
        version: metrics::VERSION,
        priorities: (100, 100),
        resources: metrics::resources(),
    }
}

/// Who may view a namespace may see what its pods use.
pub(crate) fn role() -> Value {
    let aggregated = ["view", "edit", "admin"]
        .map(|role| (format!("rbac.authorization.k8s.io/aggregate-to-{role}"), json!("true")));
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": "system:aggregated-metrics-reader",
            "labels": serde_json::Map::from_iter(aggregated)},
        "rules": [{"apiGroups": [metrics::GROUP], "resources": ["pods", "nodes"],
            "verbs": ["get", "list", "watch"]}],
    })
}
