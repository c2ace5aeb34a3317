//! A node that is short of memory or disk ends pods, one at a time, until it is not.
//!
//! Pods that use more than they asked for go first, of them the least important, of them the one
//! furthest above. Disk is first freed of images that nobody uses.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use client::EventType;
use k8s_openapi::api::core::v1::Pod;
use runtime::cri::{PodSandboxStats, PodSandboxStatsFilter};

use super::EVICTED;
use super::images::Images;
use crate::admission::{self, Pressure, SYSTEM_CRITICAL_PRIORITY};
use crate::kubelet::Shared;
use crate::node::{self, Machine};
use crate::pod::Event;
use crate::spec::{labels, resources, spec_of, uid_of};
use crate::thresholds::Thresholds;

/// What an ended pod held is given back after a while; until then nobody else is ended for it.
const PAUSE: Duration = Duration::from_secs(30);

/// A shortage that was seen counts as one for this long, so that pods do not come and go with it.
const TRANSITION: Duration = Duration::from_secs(300);

#[derive(Debug, Default)]
pub(super) struct Eviction {
    last: Option<Instant>,
    seen: BTreeMap<Pressure, Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Resource {
    Memory,
    Disk,
    Inodes,
}

/// What the node is short of.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Shortage {
    resource: Resource,
    threshold: u64,
    available: u64,
}

/// A pod that might go.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Candidate {
    uid: String,
    priority: i32,
    usage: u64,
    request: u64,
}

fn shortage(machine: &Machine, thresholds: &Thresholds) -> Option<Shortage> {
    let all = [
        (Resource::Memory, thresholds.memory, machine.memory_available_bytes, machine.memory_bytes),
        (Resource::Disk, thresholds.disk, machine.disk_available_bytes, machine.disk_bytes),
        (Resource::Inodes, thresholds.inodes, machine.inodes_free, machine.inodes),
    ];
    let short = all.into_iter().find(|(_, least, free, all)| least.is_short(*free, *all));
    short.map(|(resource, least, available, all)| Shortage {
        resource,
        threshold: least.of(all),
        available,
    })
}

/// The one to go next.
fn choose(mut candidates: Vec<Candidate>) -> Option<Candidate> {
    candidates.retain(|c| c.priority < SYSTEM_CRITICAL_PRIORITY);
    candidates.into_iter().min_by_key(|c| {
        let above = c.usage.saturating_sub(c.request);
        (c.usage <= c.request, c.priority, Reverse(above), c.uid.clone())
    })
}

impl Resource {
    fn name(self) -> &'static str {
        match self {
            Resource::Memory => "memory",
            Resource::Disk => "ephemeral-storage",
            Resource::Inodes => "inodes",
        }
    }

    fn amount(self, value: u64) -> String {
        match self {
            Resource::Inodes => value.to_string(),
            _ => format!("{}Ki", value / 1024),
        }
    }

    fn usage(self, stats: &PodSandboxStats) -> u64 {
        let linux = stats.linux.clone().unwrap_or_default();
        let layers = || linux.containers.iter().filter_map(|c| c.writable_layer.as_ref());
        match self {
            Resource::Memory => {
                linux.memory.and_then(|m| m.working_set_bytes).map_or(0, |v| v.value)
            }
            Resource::Disk => layers().filter_map(|l| l.used_bytes.as_ref()).map(|v| v.value).sum(),
            Resource::Inodes => {
                layers().filter_map(|l| l.inodes_used.as_ref()).map(|v| v.value).sum()
            }
        }
    }

    fn request(self, pod: &Pod) -> u64 {
        match self {
            Resource::Memory => resources::total_request(pod, "memory"),
            Resource::Disk => resources::total_request(pod, "ephemeral-storage"),
            Resource::Inodes => 0,
        }
    }
}

impl Eviction {
    /// What new pods are refused for, from now on.
    pub(super) fn look(&mut self, shared: &Shared) {
        let machine = node::machine(&shared.config.root_dir);
        let now = Instant::now();
        let short = admission::pressure(&machine, &shared.config.eviction);
        self.seen.extend(short.into_iter().map(|p| (p, now)));
        self.seen.retain(|_, at| now.duration_since(*at) < TRANSITION);
        shared.set_pressure(self.seen.keys().copied().collect());
    }

    pub(super) async fn check(&mut self, shared: &Shared, images: &mut Images) {
        self.look(shared);
        let look = || {
            let machine = node::machine(&shared.config.root_dir);
            shortage(&machine, &shared.config.eviction)
        };
        let Some(mut short) = look() else { return };
        if self.last.is_some_and(|at| at.elapsed() < PAUSE) {
            return;
        }
        shared.recorder.event(
            &node::about(shared),
            EventType::Warning,
            "EvictionThresholdMet",
            format!("Attempting to reclaim {}", short.resource.name()),
        );
        if short.resource != Resource::Memory {
            images.free(shared, u64::MAX).await;
            match look() {
                Some(still) => short = still,
                None => return,
            }
        }
        if self.evict(shared, &short).await {
            self.last = Some(Instant::now());
        }
    }

    async fn evict(&self, shared: &Shared, short: &Shortage) -> bool {
        let filter = PodSandboxStatsFilter::default();
        let stats = match shared.runtime.list_pod_sandbox_stats(filter).await {
            Ok(stats) => stats,
            Err(error) => {
                tracing::warn!(error = error.chain(), "short of something, but no statistics");
                return false;
            }
        };
        let pods = shared.pods.list();
        let candidate = |stats: &PodSandboxStats| {
            let uid = stats.attributes.as_ref()?.labels.get(labels::POD_UID)?;
            let pod = pods.iter().find(|pod| uid_of(pod) == uid)?;
            Some(Candidate {
                uid: uid.clone(),
                priority: spec_of(pod).priority.unwrap_or(0),
                usage: short.resource.usage(stats),
                request: short.resource.request(pod),
            })
        };
        let Some(chosen) = choose(stats.iter().filter_map(candidate).collect()) else {
            tracing::warn!(?short, "short of something, and no pod to end");
            return false;
        };
        let message = message(short, &chosen);
        let disruption = Some(message.clone());
        let event = Event::Evict { reason: EVICTED, message, grace: Some(0), disruption };
        shared.tell(&chosen.uid, event)
    }
}

fn message(short: &Shortage, chosen: &Candidate) -> String {
    let (resource, of) = (short.resource.name(), |value| short.resource.amount(value));
    format!(
        "The node was low on resource: {resource}. Threshold quantity: {}, available: {}. The pod was using {}, request is {}, has larger consumption of {resource}. ",
        of(short.threshold),
        of(short.available),
        of(chosen.usage),
        of(chosen.request),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(uid: &str, priority: i32, usage: u64, request: u64) -> Candidate {
        Candidate { uid: uid.into(), priority, usage, request }
    }

    #[test]
    fn those_above_their_request_go_first_then_the_least_important_then_the_furthest_above() {
        let within = candidate("within", -10, 90, 100);
        let important = candidate("important", 10, 500, 100);
        let near = candidate("near", 0, 150, 100);
        let far = candidate("far", 0, 250, 100);
        let critical = candidate("critical", SYSTEM_CRITICAL_PRIORITY, 9000, 0);
        let mut all = vec![within, important, near, far, critical];
        let mut order = Vec::new();
        while let Some(next) = choose(all.clone()) {
            all.retain(|c| c.uid != next.uid);
            order.push(next.uid);
        }
        assert_eq!(order, ["far", "near", "important", "within"]);
    }

    #[test]
    fn memory_comes_before_disk() {
        let machine = Machine {
            memory_bytes: 1 << 30,
            memory_available_bytes: 50 << 20,
            disk_bytes: 1000,
            disk_available_bytes: 50,
            ..Machine::default()
        };
        let thresholds = Thresholds::default();
        let short = shortage(&machine, &thresholds).unwrap();
        assert_eq!((short.resource, short.threshold), (Resource::Memory, 100 << 20));
        let enough = Machine { memory_available_bytes: 200 << 20, ..machine.clone() };
        assert_eq!(shortage(&enough, &thresholds).unwrap().resource, Resource::Disk);
        let fine = Machine { disk_available_bytes: 500, ..enough };
        assert_eq!(shortage(&fine, &thresholds), None);
    }
}
