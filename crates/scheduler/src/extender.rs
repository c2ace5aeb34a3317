//! Extenders: services that filter, score, preempt and bind beside the plugins.
//!
//! How a request reaches an extender is the port [`ExtenderTransport`]: this crate knows no HTTP. Filter,
//! Prioritize and Preempt are asked on the planner's thread, which waits; every wait has the extender's
//! deadline.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Node};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::framework::{BoxFuture, Code, Cycle, MAX_NODE_SCORE, NodeStatuses, Status, Victims};
use crate::pod::PodInfo;
use crate::snapshot::Snapshot;

/// The best score that an extender gives.
const EXTENDER_SCORE_MAX: i64 = 10;

/// Carries requests to one extender: a POST of JSON below its URL prefix, answered with JSON. Deadlines,
/// TLS and the limit of the answer are its own.
pub trait ExtenderTransport: Debug + Send + Sync {
    fn post(&self, verb: &str, body: Vec<u8>) -> BoxFuture<'_, Result<Vec<u8>, String>>;
}

/// An extender, as the configuration describes it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct ExtenderConfig {
    pub url_prefix: String,
    pub filter_verb: String,
    pub preempt_verb: String,
    pub prioritize_verb: String,
    pub weight: i64,
    pub bind_verb: String,
    #[serde(rename = "enableHTTPS")]
    pub enable_https: bool,
    pub tls_config: Option<ExtenderTls>,
    #[serde(deserialize_with = "crate::duration::required")]
    pub http_timeout: Duration,
    pub node_cache_capable: bool,
    pub managed_resources: Vec<ManagedResource>,
    pub ignorable: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct ExtenderTls {
    pub insecure: bool,
    pub server_name: String,
    pub cert_file: String,
    pub key_file: String,
    pub ca_file: String,
    /// Base64 of PEM.
    pub cert_data: String,
    pub key_data: String,
    pub ca_data: String,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct ManagedResource {
    pub name: String,
    pub ignored_by_scheduler: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Extender {
    pub(crate) config: ExtenderConfig,
    pub(crate) transport: Arc<dyn ExtenderTransport>,
}

/// All extenders, in the configuration's order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Extenders(pub(crate) Arc<Vec<Extender>>);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct FilterResult {
    nodes: Option<NodeList>,
    #[serde(alias = "nodenames", alias = "NodeNames")]
    node_names: Option<Vec<String>>,
    #[serde(alias = "FailedNodes")]
    failed_nodes: BTreeMap<String, String>,
    #[serde(alias = "FailedAndUnresolvableNodes")]
    failed_and_unresolvable_nodes: BTreeMap<String, String>,
    #[serde(alias = "Error")]
    error: String,
}

#[derive(Deserialize)]
struct NodeList {
    #[serde(default)]
    items: Vec<Node>,
}

#[derive(Deserialize)]
struct HostPriority {
    #[serde(alias = "Host")]
    host: String,
    #[serde(alias = "Score")]
    score: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PreemptionResult {
    #[serde(default, alias = "NodeNameToMetaVictims")]
    node_name_to_meta_victims: BTreeMap<String, MetaVictims>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct MetaVictims {
    #[serde(default, alias = "Pods")]
    pods: Vec<MetaPod>,
    #[serde(default, rename = "numPDBViolations", alias = "NumPDBViolations")]
    violations: i64,
}

#[derive(Serialize, Deserialize)]
struct MetaPod {
    #[serde(alias = "UID")]
    uid: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct BindingResult {
    #[serde(alias = "Error")]
    error: String,
}

impl Extender {
    fn is_interested(&self, pod: &PodInfo) -> bool {
        let managed = &self.config.managed_resources;
        let Some(spec) = pod.spec() else { return false };
        let asks = |c: &Container| {
            let resources = c.resources.as_ref();
            let requests = resources.and_then(|r| r.requests.as_ref()).into_iter().flatten();
            let limits = resources.and_then(|r| r.limits.as_ref()).into_iter().flatten();
            requests.chain(limits).any(|(name, _)| managed.iter().any(|m| m.name == *name))
        };
        let mut containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        managed.is_empty() || containers.any(asks)
    }

    async fn send<T: DeserializeOwned>(&self, verb: &str, body: &Value) -> Result<T, String> {
        let body = serde_json::to_vec(body).map_err(|e| e.to_string())?;
        let answer = self.transport.post(verb, body).await?;
        serde_json::from_slice(&answer).map_err(|e| format!("decode the extender's answer: {e}"))
    }

    /// The planner's thread waits for the answer, which has the transport's deadline.
    fn ask<T: DeserializeOwned>(&self, verb: &str, body: &Value) -> Result<T, String> {
        let runtime = tokio::runtime::Handle::try_current().map_err(|e| e.to_string())?;
        runtime.block_on(self.send(verb, body))
    }

    fn nodes_body(&self, cycle: &Cycle<'_>, slots: &[u32]) -> Value {
        let nodes = slots.iter().map(|slot| cycle.snapshot.node(*slot));
        match self.config.node_cache_capable {
            true => {
                let names: Vec<&str> = nodes.map(|n| &*n.name).collect();
                json!({"pod": *cycle.pod.pod, "nodes": null, "nodenames": names})
            }
            false => {
                let items: Vec<&Node> = nodes.filter_map(|n| n.node.as_deref()).collect();
                json!({"pod": *cycle.pod.pod, "nodes": {"items": items}, "nodenames": null})
            }
        }
    }

    fn filter(&self, cycle: &Cycle<'_>, slots: &[u32]) -> Result<FilterResult, String> {
        let body = self.nodes_body(cycle, slots);
        let result: FilterResult = self.ask(&self.config.filter_verb, &body)?;
        if result.error.is_empty() { Ok(result) } else { Err(result.error) }
    }

    fn kept(
        &self,
        cycle: &Cycle<'_>,
        slots: &[u32],
        result: &FilterResult,
    ) -> Result<Vec<u32>, String> {
        let names: Vec<String> = match (&result.node_names, &result.nodes) {
            (Some(names), _) if self.config.node_cache_capable => names.clone(),
            (_, Some(list)) => list.items.iter().filter_map(|n| n.metadata.name.clone()).collect(),
            _ => Vec::new(),
        };
        let known: HashMap<&str, u32> =
            slots.iter().map(|slot| (&*cycle.snapshot.node(*slot).name, *slot)).collect();
        let slot = |name: &String| {
            known.get(name.as_str()).copied().ok_or_else(|| {
                format!(
                    "extender \"{}\" claims a filtered node \"{name}\" which is not found in the \
                     input node list",
                    self.config.url_prefix
                )
            })
        };
        names.iter().map(slot).collect()
    }

    fn preempt(
        &self,
        pod: &PodInfo,
        candidates: &[Victims],
        snapshot: &Snapshot,
    ) -> Result<Vec<Victims>, String> {
        let body = match self.config.node_cache_capable {
            true => {
                let meta = |v: &Victims| MetaVictims {
                    pods: v.pods.iter().map(|p| MetaPod { uid: p.uid().to_owned() }).collect(),
                    violations: i64::try_from(v.violations).unwrap_or(i64::MAX),
                };
                let all: BTreeMap<&str, MetaVictims> =
                    candidates.iter().map(|v| (v.node.as_str(), meta(v))).collect();
                json!({"pod": *pod.pod, "nodeNameToMetaVictims": all})
            }
            false => {
                let full = |v: &Victims| {
                    let pods: Vec<_> = v.pods.iter().map(|p| &*p.pod).collect();
                    json!({"pods": pods, "numPDBViolations": v.violations})
                };
                let all: BTreeMap<&str, Value> =
                    candidates.iter().map(|v| (v.node.as_str(), full(v))).collect();
                json!({"pod": *pod.pod, "nodeNameToVictims": all})
            }
        };
        let result: PreemptionResult = self.ask(&self.config.preempt_verb, &body)?;
        let mut out = Vec::new();
        for (node, meta) in result.node_name_to_meta_victims {
            if meta.pods.is_empty() {
                if self.config.ignorable {
                    continue;
                }
                return Err(format!("expected at least one victim pod on node \"{node}\""));
            }
            out.push(self.victims(node, &meta, snapshot)?);
        }
        Ok(out)
    }

    fn victims(
        &self,
        node: String,
        meta: &MetaVictims,
        snapshot: &Snapshot,
    ) -> Result<Victims, String> {
        let slot = snapshot
            .slot(&node)
            .ok_or_else(|| format!("nodeinfo not found for node name \"{node}\""))?;
        let there = &snapshot.node(slot).pods;
        let find = |wanted: &MetaPod| {
            there.iter().find(|p| p.uid() == wanted.uid).cloned().ok_or_else(|| {
                format!(
                    "extender: {} claims to preempt pod (UID: {}) on node: {node}, but the pod is not \
                     found on that node",
                    self.config.url_prefix, wanted.uid
                )
            })
        };
        let pods = meta.pods.iter().map(find).collect::<Result<_, _>>()?;
        let violations = usize::try_from(meta.violations).unwrap_or(0);
        Ok(Victims { node, pods, violations })
    }
}

impl Extenders {
    /// Whether some extender filters or scores.
    pub(crate) fn any(&self) -> bool {
        let speaks =
            |e: &Extender| !e.config.filter_verb.is_empty() || !e.config.prioritize_verb.is_empty();
        self.0.iter().any(speaks)
    }

    /// Resources that the scheduler leaves to extenders.
    pub(crate) fn ignored_resources(&self) -> BTreeSet<String> {
        let all = self.0.iter().flat_map(|e| &e.config.managed_resources);
        all.filter(|r| r.ignored_by_scheduler).map(|r| r.name.clone()).collect()
    }

    /// The nodes that all interested extenders leave.
    pub(crate) fn filter(
        &self,
        cycle: &Cycle<'_>,
        mut slots: Vec<u32>,
        statuses: &mut NodeStatuses,
    ) -> Result<Vec<u32>, String> {
        for extender in self.0.iter() {
            let asks = !extender.config.filter_verb.is_empty();
            if slots.is_empty() || !asks || !extender.is_interested(cycle.pod) {
                continue;
            }
            let result = extender.filter(cycle, &slots);
            let kept = result.and_then(|r| Ok((extender.kept(cycle, &slots, &r)?, r)));
            match kept {
                Ok((kept, result)) => {
                    note_failures(cycle, &result, statuses);
                    slots = kept;
                }
                Err(why) if extender.config.ignorable => {
                    tracing::info!(extender = extender.config.url_prefix, why, "skipped");
                }
                Err(why) => return Err(why),
            }
        }
        Ok(slots)
    }

    /// Adds the extenders' scores. One that fails gives none.
    pub(crate) fn prioritize(&self, cycle: &Cycle<'_>, slots: &[u32], totals: &mut [i64]) {
        for extender in self.0.iter() {
            let verb = &extender.config.prioritize_verb;
            if verb.is_empty() || !extender.is_interested(cycle.pod) {
                continue;
            }
            let body = extender.nodes_body(cycle, slots);
            let scores: Vec<HostPriority> = match extender.ask(verb, &body) {
                Ok(scores) => scores,
                Err(why) => {
                    tracing::debug!(extender = extender.config.url_prefix, why, "no scores");
                    continue;
                }
            };
            let scale = extender.config.weight * (MAX_NODE_SCORE / EXTENDER_SCORE_MAX);
            let by_name: HashMap<&str, i64> =
                scores.iter().map(|s| (s.host.as_str(), s.score.saturating_mul(scale))).collect();
            for (slot, total) in slots.iter().zip(totals.iter_mut()) {
                let name = &*cycle.snapshot.node(*slot).name;
                *total = total.saturating_add(by_name.get(name).copied().unwrap_or(0));
            }
        }
    }

    pub(crate) fn preempt(
        &self,
        pod: &PodInfo,
        mut candidates: Vec<Victims>,
        snapshot: &Snapshot,
    ) -> Result<Vec<Victims>, String> {
        for extender in self.0.iter() {
            if extender.config.preempt_verb.is_empty() || !extender.is_interested(pod) {
                continue;
            }
            match extender.preempt(pod, &candidates, snapshot) {
                Ok(left) => candidates = left,
                Err(why) if extender.config.ignorable => {
                    tracing::info!(extender = extender.config.url_prefix, why, "skipped");
                }
                Err(why) => return Err(why),
            }
            if candidates.is_empty() {
                break;
            }
        }
        Ok(candidates)
    }

    /// Binds the pod by the extender that does so, if there is one.
    pub(crate) async fn bind(&self, pod: &PodInfo, node: &str) -> Option<Result<(), String>> {
        let binds = |e: &&Extender| !e.config.bind_verb.is_empty() && e.is_interested(pod);
        let extender = self.0.iter().find(binds)?;
        let body = json!({"podName": pod.name(), "podNamespace": pod.namespace(),
            "podUID": pod.uid(), "node": node});
        let answer = extender.send::<BindingResult>(&extender.config.bind_verb, &body).await;
        match answer {
            Ok(result) if result.error.is_empty() => Some(Ok(())),
            Ok(BindingResult { error }) | Err(error) if extender.config.ignorable => {
                tracing::info!(extender = extender.config.url_prefix, error, "skipped");
                None
            }
            Ok(BindingResult { error }) | Err(error) => Some(Err(error)),
        }
    }
}

fn note_failures(cycle: &Cycle<'_>, result: &FilterResult, statuses: &mut NodeStatuses) {
    let mut note = |name: &str, code: Code, why: &str| {
        if let Some(slot) = cycle.snapshot.slot(name) {
            let reasons = vec![why.to_owned().into()];
            let status = Status { code, plugin: EXTENDER, reasons };
            statuses.explicit.push((slot, Arc::new(status)));
        }
    };
    for (name, why) in &result.failed_and_unresolvable_nodes {
        note(name, Code::Unresolvable, why);
    }
    for (name, why) in &result.failed_nodes {
        if !result.failed_and_unresolvable_nodes.contains_key(name) {
            note(name, Code::Unschedulable, why);
        }
    }
}

/// Stands in rejections where a plugin's name would.
pub(crate) const EXTENDER: &str = "Extender";
