//! TaintToleration: taints keep pods away that do not tolerate them, or make nodes less liked.

use super::names;
use crate::event::{Action, ClusterEvent, Interest, Resource};
use crate::framework::{
    Code, Cycle, Gap, Plugin, Points, Preparing, Verdict, normalize_by_greatest, reject,
};
use crate::labels::{taints, tolerates, untolerated_taint};
use crate::node::NodeInfo;
use crate::pod::PodInfo;

#[derive(Debug)]
pub(crate) struct TaintToleration;

impl Plugin for TaintToleration {
    fn name(&self) -> &'static str {
        names::TAINT_TOLERATION
    }

    fn points(&self) -> Points {
        Points::FILTER.and(Points::PRE_SCORE).and(Points::SCORE)
    }

    fn is_node_local(&self) -> bool {
        true
    }

    fn events(&self) -> &'static [Interest] {
        &[
            (Resource::Node, Action::ADD),
            (Resource::Node, Action::NODE_TAINT),
            (Resource::Pod, Action::POD_TOLERATION),
        ]
    }

    fn queueing_hint(&self, pod: &PodInfo, event: &ClusterEvent) -> bool {
        if let Some((_, Some(new))) = event.pod() {
            return new.metadata.uid == pod.pod.metadata.uid;
        }
        let Some((old, Some(new))) = event.node() else { return false };
        let untolerated = |node| untolerated_taint(node, pod.tolerations()).is_some();
        old.as_ref().is_none_or(|old| untolerated(old)) && !untolerated(new)
    }

    fn filter(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> Verdict {
        let found = node.node.as_ref().and_then(|n| untolerated_taint(n, cycle.pod.tolerations()));
        match found {
            None => Ok(()),
            Some(_) => {
                Err(reject(Code::Unresolvable, self.name(), "node(s) had untolerated taint(s)"))
            }
        }
    }

    fn pre_score(&self, cycle: &mut Preparing<'_>, _: &[u32]) -> bool {
        // Without such taints all nodes score alike.
        cycle.snapshot.has_discouraging_nodes()
    }

    fn score(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> i64 {
        let all = node.node.as_deref().map(taints).unwrap_or_default();
        let soft = all.iter().filter(|t| t.effect == "PreferNoSchedule");
        let untolerated = soft.filter(|t| !tolerates(cycle.pod.tolerations(), t)).count();
        i64::try_from(untolerated).unwrap_or(i64::MAX)
    }

    fn normalizes(&self) -> bool {
        true
    }

    fn normalize(&self, _: &Cycle<'_>, _: &[u32], scores: &mut [i64]) {
        normalize_by_greatest(scores, true);
    }

    fn gap(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> Option<Gap> {
        let taint = untolerated_taint(node.node.as_ref()?, cycle.pod.tolerations())?;
        let value = taint.value.as_deref().filter(|v| !v.is_empty());
        let value = value.map_or_else(String::new, |v| format!("={v}"));
        let remedy = format!("tolerate taint {}{value}:{}", taint.key, taint.effect);
        Some(Gap { distance: 1.0, remedy })
    }
}
