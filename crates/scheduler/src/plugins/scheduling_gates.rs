//! SchedulingGates: a pod with gates is not tried.

use super::names;
use crate::event::{Action, ClusterEvent, Interest, Resource};
use crate::framework::{Plugin, Points};
use crate::pod::PodInfo;

#[derive(Debug)]
pub(crate) struct SchedulingGates;

impl Plugin for SchedulingGates {
    fn name(&self) -> &'static str {
        names::SCHEDULING_GATES
    }

    fn points(&self) -> Points {
        Points::PRE_ENQUEUE
    }

    fn events(&self) -> &'static [Interest] {
        &[(Resource::Pod, Action::POD_GATES_GONE)]
    }

    fn queueing_hint(&self, pod: &PodInfo, event: &ClusterEvent) -> bool {
        let new = event.pod().and_then(|(_, new)| new.as_ref());
        new.is_some_and(|new| new.metadata.uid == pod.pod.metadata.uid)
    }

    fn pre_enqueue(&self, pod: &PodInfo) -> Result<(), String> {
        let gates = pod.spec().and_then(|s| s.scheduling_gates.as_deref()).unwrap_or_default();
        if gates.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = gates.iter().map(|g| g.name.as_str()).collect();
        Err(format!("waiting for scheduling gates: [{}]", names.join(" ")))
    }
}
