//! NodeAffinity: the node selector, required and preferred node affinity, and those that the
//! configuration adds to every pod.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    Node, NodeAffinity as Affinity, NodeSelectorTerm, PreferredSchedulingTerm,
};

use super::names;
use crate::event::{Action, ClusterEvent, Interest, Resource};
use crate::framework::{
    Code, Cycle, Gap, Plugin, Points, PreFilter, Preparing, Verdict, normalize_by_greatest, reject,
};
use crate::labels::{
    node_matches, required_terms, restricts_nodes, selector_matches, term_matches,
};
use crate::node::NodeInfo;
use crate::pod::PodInfo;

#[derive(Debug, Default)]
pub(crate) struct NodeAffinity {
    added: Affinity,
}

impl NodeAffinity {
    pub(crate) fn new(added: Option<Affinity>) -> NodeAffinity {
        NodeAffinity { added: added.unwrap_or_default() }
    }

    fn enforced(&self, node: &Node) -> bool {
        let required = self.added.required_during_scheduling_ignored_during_execution.as_ref();
        required.is_none_or(|r| selector_matches(r, node))
    }

    fn preferred<'a>(
        &'a self,
        pod: &'a PodInfo,
    ) -> impl Iterator<Item = &'a PreferredSchedulingTerm> {
        let affinity = pod.spec().and_then(|s| s.affinity.as_ref()?.node_affinity.as_ref());
        let of = |a: &'a Affinity| {
            a.preferred_during_scheduling_ignored_during_execution.iter().flatten()
        };
        affinity.into_iter().flat_map(of).chain(of(&self.added))
    }
}

impl Plugin for NodeAffinity {
    fn name(&self) -> &'static str {
        names::NODE_AFFINITY
    }

    fn points(&self) -> Points {
        let filter = Points::PRE_FILTER.and(Points::FILTER);
        filter.and(Points::PRE_SCORE).and(Points::SCORE)
    }

    fn is_node_local(&self) -> bool {
        true
    }

    fn events(&self) -> &'static [Interest] {
        &[(Resource::Node, Action::ADD), (Resource::Node, Action::NODE_LABEL)]
    }

    fn queueing_hint(&self, pod: &PodInfo, event: &ClusterEvent) -> bool {
        let (Some((old, Some(new))), Some(spec)) = (event.node(), pod.spec()) else { return false };
        let was = old.as_ref().is_some_and(|old| node_matches(spec, old) && self.enforced(old));
        self.enforced(new) && node_matches(spec, new) && !was
    }

    fn pre_filter(&self, cycle: &mut Preparing<'_>) -> PreFilter {
        let Some(spec) = cycle.pod.spec() else { return PreFilter::Skip };
        let enforces = self.added.required_during_scheduling_ignored_during_execution.is_some();
        if !enforces && !restricts_nodes(spec) {
            return PreFilter::Skip;
        }
        let terms = required_terms(spec).map_or(&[][..], |r| &r.node_selector_terms);
        match named_nodes(terms) {
            None => PreFilter::Continue,
            Some(names) if names.is_empty() => {
                let why = "pod affinity terms conflict";
                PreFilter::Reject(reject(Code::Unresolvable, self.name(), why))
            }
            Some(names) => PreFilter::Nodes(names),
        }
    }

    fn filter(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> Verdict {
        let (Some(node), Some(spec)) = (&node.node, cycle.pod.spec()) else { return Ok(()) };
        if !self.enforced(node) {
            let why = "node(s) didn't match scheduler-enforced node affinity";
            return Err(reject(Code::Unresolvable, self.name(), why));
        }
        if !node_matches(spec, node) {
            let why = "node(s) didn't match Pod's node affinity/selector";
            return Err(reject(Code::Unresolvable, self.name(), why));
        }
        Ok(())
    }

    fn pre_score(&self, cycle: &mut Preparing<'_>, _: &[u32]) -> bool {
        self.preferred(cycle.pod).next().is_some()
    }

    fn score(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> i64 {
        let Some(node) = &node.node else { return 0 };
        let hits = self.preferred(cycle.pod).filter(|t| term_matches(&t.preference, node));
        hits.map(|t| i64::from(t.weight)).sum()
    }

    fn normalizes(&self) -> bool {
        true
    }

    fn normalize(&self, _: &Cycle<'_>, _: &[u32], scores: &mut [i64]) {
        normalize_by_greatest(scores, false);
    }

    fn gap(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> Option<Gap> {
        let (node, spec) = (node.node.as_ref()?, cycle.pod.spec()?);
        let label = |key: &str| node.metadata.labels.as_ref().and_then(|l| l.get(key));
        let missing: Vec<String> = spec
            .node_selector
            .iter()
            .flatten()
            .filter(|(key, value)| label(key.as_str()) != Some(*value))
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        let remedy = match missing.as_slice() {
            [] => "match the required node affinity".to_owned(),
            missing => format!("label it {}", missing.join(", ")),
        };
        Some(Gap { distance: missing.len().max(1) as f64, remedy })
    }
}

/// The nodes that the terms name; `None` when some term names none.
fn named_nodes(terms: &[NodeSelectorTerm]) -> Option<BTreeSet<String>> {
    if terms.is_empty() {
        return None;
    }
    let mut all = BTreeSet::new();
    for term in terms {
        let fields = term.match_fields.iter().flatten();
        let named = fields.filter(|r| r.key == "metadata.name" && r.operator == "In");
        let sets = named.map(|r| r.values.iter().flatten().cloned().collect::<BTreeSet<_>>());
        all.extend(sets.reduce(|a, b| &a & &b)?);
    }
    Some(all)
}
