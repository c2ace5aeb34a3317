//! The framework: what a plugin is, and what it is given at each extension point.
//!
//! A scheduling cycle runs PreFilter, Filter, (PostFilter when no node is left,) PreScore, Score and
//! Reserve on the planner's thread; PreBind and Bind run beside the next cycles.

mod state;
mod status;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::event::{ClusterEvent, Interest};
use crate::node::NodeInfo;
use crate::pod::PodInfo;
use crate::snapshot::Snapshot;

pub(crate) use state::CycleState;
pub(crate) use status::{Code, Status, Verdict, reject};

pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The best score that a plugin gives to a node.
pub(crate) const MAX_NODE_SCORE: i64 = 100;

/// The extension points that a plugin has something to say at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Points(u16);

impl Points {
    pub(crate) const PRE_ENQUEUE: Points = Points(1);
    pub(crate) const QUEUE_SORT: Points = Points(1 << 1);
    pub(crate) const PRE_FILTER: Points = Points(1 << 2);
    pub(crate) const FILTER: Points = Points(1 << 3);
    pub(crate) const POST_FILTER: Points = Points(1 << 4);
    pub(crate) const PRE_SCORE: Points = Points(1 << 5);
    pub(crate) const SCORE: Points = Points(1 << 6);
    pub(crate) const RESERVE: Points = Points(1 << 7);
    pub(crate) const PERMIT: Points = Points(1 << 8);
    pub(crate) const PRE_BIND: Points = Points(1 << 9);
    pub(crate) const BIND: Points = Points(1 << 10);
    pub(crate) const POST_BIND: Points = Points(1 << 11);

    pub(crate) const fn and(self, other: Points) -> Points {
        Points(self.0 | other.0)
    }

    pub(crate) fn has(self, other: Points) -> bool {
        self.0 & other.0 == other.0
    }
}

/// A cycle before its nodes are looked at: the snapshot's counters may be made ready.
pub(crate) struct Preparing<'a> {
    pub(crate) pod: &'a Arc<PodInfo>,
    pub(crate) snapshot: &'a mut Snapshot,
    pub(crate) state: &'a mut CycleState,
}

/// A cycle while nodes are filtered and scored.
#[derive(Clone, Copy)]
pub(crate) struct Cycle<'a> {
    pub(crate) pod: &'a Arc<PodInfo>,
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) state: &'a CycleState,
}

/// What PreFilter found.
#[derive(Debug)]
pub(crate) enum PreFilter {
    /// The plugin's filter has nothing to say about this pod.
    Skip,
    /// Nodes have to be filtered.
    Continue,
    /// Only these nodes can do.
    Nodes(BTreeSet<String>),
    Reject(Arc<Status>),
}

/// What PostFilter found.
#[derive(Debug)]
pub(crate) enum PostFilter {
    /// The end of these pods makes room on a node.
    Nominate(Victims),
    /// Nothing helps; whether the pod's present nomination ends.
    Unschedulable {
        reason: Cow<'static, str>,
        clear_nomination: bool,
    },
    Error(String),
}

/// Pods whose end would make room on a node, the most important first.
#[derive(Debug, Clone)]
pub(crate) struct Victims {
    pub(crate) node: String,
    pub(crate) pods: Vec<Arc<PodInfo>>,
    /// How many of them a disruption budget protects.
    pub(crate) violations: usize,
}

/// Where the nodes of a failed cycle stand.
#[derive(Debug, Default)]
pub(crate) struct NodeStatuses {
    /// By slot, in the order they were looked at.
    pub(crate) explicit: Vec<(u32, Arc<Status>)>,
    /// The status of all other nodes.
    pub(crate) absent: Option<Arc<Status>>,
}

impl NodeStatuses {
    pub(crate) fn of(&self, slot: u32) -> Option<&Arc<Status>> {
        let found = self.explicit.iter().rev().find(|(at, _)| *at == slot);
        found.map(|(_, status)| status).or(self.absent.as_ref())
    }
}

/// The filters of a profile, for plugins that try what would be.
pub(crate) trait Filters {
    /// All filters on a node, pods nominated for it taken into account.
    fn check(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> Verdict;
    /// Tells the plugins of a pod that is tried on the node.
    fn add_pod(&self, cycle: &Cycle<'_>, state: &mut CycleState, pod: &PodInfo, node: &NodeInfo);
    /// Tells the plugins of a pod that is taken off the node to try.
    fn remove_pod(&self, cycle: &Cycle<'_>, state: &mut CycleState, pod: &PodInfo, node: &NodeInfo);
    /// What extenders make of the candidates.
    fn extend_preemption(
        &self,
        pod: &PodInfo,
        candidates: Vec<Victims>,
        snapshot: &Snapshot,
    ) -> Result<Vec<Victims>, String>;
}

/// How far a node is from taking a pod, as one plugin sees it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Gap {
    /// Compared between nodes: 1 for a change of the pod's or node's definition, below that for amounts,
    /// as a share of what the node has.
    pub(crate) distance: f64,
    /// What would have to change, as words after "to fit on node x: ".
    pub(crate) remedy: String,
}

pub(crate) trait Plugin: Debug + Send + Sync {
    fn name(&self) -> &'static str;

    fn points(&self) -> Points;

    /// Whether Filter and Score depend on nothing but the pod's signature and the node.
    fn is_node_local(&self) -> bool {
        false
    }

    /// The events that may let a pod fit that this plugin rejected.
    fn events(&self) -> &'static [Interest] {
        &[]
    }

    /// Whether one of those events is reason to try this pod again.
    fn queueing_hint(&self, _pod: &PodInfo, _event: &ClusterEvent) -> bool {
        true
    }

    /// Whether the pod may be tried at all; the error says what it waits for.
    fn pre_enqueue(&self, _pod: &PodInfo) -> Result<(), String> {
        Ok(())
    }

    fn pre_filter(&self, _cycle: &mut Preparing<'_>) -> PreFilter {
        PreFilter::Continue
    }

    fn filter(&self, _cycle: &Cycle<'_>, _node: &NodeInfo) -> Verdict {
        Ok(())
    }

    fn add_pod(
        &self,
        _cycle: &Cycle<'_>,
        _state: &mut CycleState,
        _pod: &PodInfo,
        _node: &NodeInfo,
    ) {
    }

    fn remove_pod(
        &self,
        _cycle: &Cycle<'_>,
        _state: &mut CycleState,
        _pod: &PodInfo,
        _node: &NodeInfo,
    ) {
    }

    fn post_filter(
        &self,
        _cycle: &Cycle<'_>,
        _filters: &dyn Filters,
        _statuses: &NodeStatuses,
    ) -> PostFilter {
        PostFilter::Unschedulable { reason: "".into(), clear_nomination: false }
    }

    /// Whether Score has something to say about this pod on these nodes.
    fn pre_score(&self, _cycle: &mut Preparing<'_>, _nodes: &[u32]) -> bool {
        true
    }

    fn score(&self, _cycle: &Cycle<'_>, _node: &NodeInfo) -> i64 {
        0
    }

    /// Whether [`Plugin::normalize`] changes scores.
    fn normalizes(&self) -> bool {
        false
    }

    /// Brings the scores of all nodes into the range up to [`MAX_NODE_SCORE`].
    fn normalize(&self, _cycle: &Cycle<'_>, _nodes: &[u32], _scores: &mut [i64]) {}

    fn reserve(&self, _state: &mut CycleState, _pod: &PodInfo, _node: &str) -> Verdict {
        Ok(())
    }

    fn unreserve(&self, _state: &mut CycleState, _pod: &PodInfo, _node: &str) {}

    fn pre_bind<'a>(
        &'a self,
        _state: &'a mut CycleState,
        _pod: &'a PodInfo,
        _node: &'a str,
    ) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn bind<'a>(
        &'a self,
        _pod: &'a PodInfo,
        _node: &'a str,
    ) -> BoxFuture<'a, Result<(), client::Error>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// What keeps the pod off a node that this plugin's filter rejects.
    fn gap(&self, _cycle: &Cycle<'_>, _node: &NodeInfo) -> Option<Gap> {
        None
    }
}

/// Scores scaled so that the greatest becomes [`MAX_NODE_SCORE`]; reversed, the greatest becomes 0.
pub(crate) fn normalize_by_greatest(scores: &mut [i64], reverse: bool) {
    let greatest = scores.iter().copied().max().unwrap_or(0);
    for score in scores {
        let scaled = if greatest > 0 { *score * MAX_NODE_SCORE / greatest } else { *score };
        *score = match (reverse, greatest) {
            (true, 0) => MAX_NODE_SCORE,
            (true, _) => MAX_NODE_SCORE - scaled,
            (false, _) => scaled,
        };
    }
}
