//! Filters: may this pod run on this node, and if not, why (in upstream's words and order).

use k8s_openapi::api::core::v1::Taint;

use crate::cluster::{Cluster, NodeInfo};
use crate::interpod::Interpod;
use crate::matching::{node_matches, tolerates};
use crate::pod::PodInfo;
use crate::resources::Resources;
use crate::spread::SpreadCounts;

/// The taint that cordoning stands for.
const UNSCHEDULABLE_TAINT: &str = "node.kubernetes.io/unschedulable";

/// Why a node was refused, by the filter that did: what may change the answer follows from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) filter: Filter,
    /// No pod's removal would help.
    pub(crate) final_: bool,
    pub(crate) reasons: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Filter {
    Unschedulable,
    Name,
    Taints,
    NodeAffinity,
    Ports,
    Resources,
    Spread,
    Interpod,
}

/// What is computed once per pod, not once per node.
pub(crate) struct Prepared<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) pod: &'a PodInfo,
    pub(crate) spread: SpreadCounts,
    pub(crate) interpod: Interpod,
}

impl<'a> Prepared<'a> {
    pub(crate) fn new(cluster: &'a Cluster, pod: &'a PodInfo) -> Prepared<'a> {
        Prepared {
            cluster,
            pod,
            spread: SpreadCounts::new(cluster, pod),
            interpod: Interpod::new(cluster, pod),
        }
    }

    /// All filters, with the room that is kept for more important pods taken into account.
    pub(crate) fn check(&self, name: &str, info: &NodeInfo) -> Result<(), Refusal> {
        self.check_static(name, info)?;
        let kept = self.cluster.kept_from(self.pod, name);
        if !kept.is_empty() {
            let mut filled = info.clone();
            kept.into_iter().for_each(|pod| filled.add(pod));
            self.check_room(&filled)?;
        }
        self.check_room(info)?;
        self.check_others(info)
    }

    /// What no pod's removal changes.
    fn check_static(&self, name: &str, info: &NodeInfo) -> Result<(), Refusal> {
        let (Some(node), Some(spec)) = (&info.node, &self.pod.pod.spec) else {
            return Err(refuse(Filter::Unschedulable, true, "node(s) had unknown conditions"));
        };
        let node_spec = node.spec.as_ref();
        let tolerations = self.pod.tolerations();
        if node_spec.is_some_and(|s| s.unschedulable == Some(true)) {
            let taint = Taint {
                key: UNSCHEDULABLE_TAINT.into(),
                effect: "NoSchedule".into(),
                ..Taint::default()
            };
            if !tolerates(tolerations, &taint) {
                return Err(refuse(Filter::Unschedulable, true, "node(s) were unschedulable"));
            }
        }
        if spec.node_name.as_deref().is_some_and(|n| !n.is_empty() && n != name) {
            let why = "node(s) didn't match the requested node name";
            return Err(refuse(Filter::Name, true, why));
        }
        let taints = node_spec.and_then(|s| s.taints.as_deref()).unwrap_or_default();
        let hard = |t: &&Taint| t.effect == "NoSchedule" || t.effect == "NoExecute";
        if taints.iter().filter(hard).any(|t| !tolerates(tolerations, t)) {
            return Err(refuse(Filter::Taints, true, "node(s) had untolerated taint(s)"));
        }
        if !node_matches(spec, node) {
            let why = "node(s) didn't match Pod's node affinity/selector";
            return Err(refuse(Filter::NodeAffinity, true, why));
        }
        Ok(())
    }

    fn check_room(&self, info: &NodeInfo) -> Result<(), Refusal> {
        if !ports_free(self.pod, info) {
            let why = "node(s) didn't have free ports for the requested pod ports";
            return Err(refuse(Filter::Ports, false, why));
        }
        let lacking = lacking(self.pod, info);
        if lacking.is_empty() {
            return Ok(());
        }
        let final_ = exceeds_whole(&self.pod.requests, &info.allocatable);
        Err(Refusal { filter: Filter::Resources, final_, reasons: lacking })
    }

    fn check_others(&self, info: &NodeInfo) -> Result<(), Refusal> {
        self.spread.check(self.pod, info)?;
        self.interpod.check(self.cluster, self.pod, info)
    }
}

pub(crate) fn refuse(filter: Filter, final_: bool, reason: &str) -> Refusal {
    Refusal { filter, final_, reasons: vec![reason.to_owned()] }
}

fn ports_free(pod: &PodInfo, info: &NodeInfo) -> bool {
    let clash = |(ip, protocol, port): &(String, String, i32)| {
        info.pods.values().flat_map(|p| &p.ports).any(|(other, other_protocol, other_port)| {
            let same_ip = ip == other || ip == "0.0.0.0" || other == "0.0.0.0";
            same_ip && protocol == other_protocol && port == other_port
        })
    };
    !pod.ports.iter().any(clash)
}

fn lacking(pod: &PodInfo, info: &NodeInfo) -> Vec<String> {
    let mut out = Vec::new();
    if info.pods.len() + 1 > info.pods_max {
        out.push("Too many pods".to_owned());
    }
    let (asked, have, used) = (&pod.requests, &info.allocatable, &info.requested);
    for (name, asked, have, used) in [
        ("cpu", asked.milli_cpu, have.milli_cpu, used.milli_cpu),
        ("memory", asked.memory, have.memory, used.memory),
        ("ephemeral-storage", asked.ephemeral, have.ephemeral, used.ephemeral),
    ] {
        if asked > 0 && asked > have - used {
            out.push(format!("Insufficient {name}"));
        }
    }
    let amount = |r: &Resources, name: &str| r.scalar.get(name).copied().unwrap_or(0);
    for (name, asked) in asked.scalar.iter().filter(|(_, asked)| **asked > 0) {
        if *asked > amount(have, name) - amount(used, name) {
            out.push(format!("Insufficient {name}"));
        }
    }
    out
}

/// The pod would not fit even on the empty node.
fn exceeds_whole(asked: &Resources, have: &Resources) -> bool {
    asked.milli_cpu > have.milli_cpu
        || asked.memory > have.memory
        || asked.ephemeral > have.ephemeral
        || asked.scalar.iter().any(|(n, a)| *a > have.scalar.get(n).copied().unwrap_or(0))
}
