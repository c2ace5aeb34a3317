//! Which pod goes first when a node is short of something, and what its status then says. Pure.
//!
//! Pods that use more than they asked for go first, of them the least important, of them the one
//! furthest above. Processes cannot be asked for: there importance comes first.

use std::cmp::Reverse;

use k8s_openapi::api::core::v1::{Container, Pod};
use runtime::cri::{ContainerStats, PodSandboxStats};

use super::judge::Shortage;
use crate::spec::quantity::{shown, units};
use crate::spec::{labels, resources, spec_of, uid_of};
use crate::thresholds::Signal;
use crate::volumes::OnDisk;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resource {
    Memory,
    Disk,
    Inodes,
    Pids,
}

/// A pod that might go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) uid: String,
    pub(super) priority: i32,
    pub(super) usage: u64,
    pub(super) request: u64,
    /// The pod's own grace period.
    pub(super) grace: i64,
    /// Sentences about what uses more than it asked for.
    pub(super) blamed: Vec<String>,
}

impl Resource {
    pub(super) fn of(signal: Signal) -> Resource {
        match signal {
            Signal::Memory => Resource::Memory,
            Signal::NodefsAvailable | Signal::ImagefsAvailable => Resource::Disk,
            Signal::NodefsInodesFree | Signal::ImagefsInodesFree => Resource::Inodes,
            Signal::Pids => Resource::Pids,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Resource::Memory => "memory",
            Resource::Disk => "ephemeral-storage",
            Resource::Inodes => "inodes",
            Resource::Pids => "pids",
        }
    }

    /// As upstream prints it: sizes in binary units.
    fn amount(self, value: u64) -> String {
        match self {
            Resource::Memory | Resource::Disk => shown(value),
            Resource::Inodes | Resource::Pids => value.to_string(),
        }
    }
}

fn layer(stats: &ContainerStats, resource: Resource) -> u64 {
    let layer = stats.writable_layer.as_ref();
    let value = match resource {
        Resource::Inodes => layer.and_then(|l| l.inodes_used.as_ref()),
        _ => layer.and_then(|l| l.used_bytes.as_ref()),
    };
    value.map_or(0, |v| v.value)
}

fn usage(stats: &PodSandboxStats, disk: &OnDisk, resource: Resource) -> u64 {
    let linux = stats.linux.clone().unwrap_or_default();
    let layers = linux.containers.iter().map(|c| layer(c, resource)).sum::<u64>();
    match resource {
        Resource::Memory => linux.memory.and_then(|m| m.working_set_bytes).map_or(0, |v| v.value),
        Resource::Disk => layers.saturating_add(disk.total().bytes),
        Resource::Inodes => layers.saturating_add(disk.total().inodes),
        Resource::Pids => linux.process.and_then(|p| p.process_count).map_or(0, |v| v.value),
    }
}

pub(super) fn candidate(
    pod: &Pod,
    stats: &PodSandboxStats,
    disk: &OnDisk,
    resource: Resource,
) -> Candidate {
    let request = match resource {
        Resource::Memory | Resource::Disk => resources::total_request(pod, resource.name()),
        Resource::Inodes | Resource::Pids => 0,
    };
    Candidate {
        uid: uid_of(pod).to_owned(),
        priority: spec_of(pod).priority.unwrap_or(0),
        usage: usage(stats, disk, resource),
        request,
        grace: super::grace(pod),
        blamed: blamed(pod, stats, disk, resource),
    }
}

fn blamed(pod: &Pod, stats: &PodSandboxStats, disk: &OnDisk, resource: Resource) -> Vec<String> {
    if matches!(resource, Resource::Inodes | Resource::Pids) {
        return Vec::new();
    }
    let spec = spec_of(pod);
    let init = spec.init_containers.iter().flatten();
    let all: Vec<&Container> = spec.containers.iter().chain(init).collect();
    let linux = stats.linux.clone().unwrap_or_default();
    let one = |stats: &ContainerStats| {
        let name = stats.attributes.as_ref()?.labels.get(labels::CONTAINER_NAME)?;
        let container = all.iter().find(|c| c.name == *name)?;
        let request = container.resources.as_ref().and_then(|r| r.requests.as_ref());
        let request = request.and_then(|r| r.get(resource.name()));
        let least = request.and_then(units).and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
        let used = match resource {
            Resource::Disk => layer(stats, resource).saturating_add(disk.logs_of(name).bytes),
            _ => stats.memory.as_ref()?.working_set_bytes.as_ref()?.value,
        };
        let request = request.map_or("0", |text| text.0.as_str());
        let sentence = format!(
            "Container {name} was using {}, request is {request}, has larger consumption of {}. ",
            resource.amount(used),
            resource.name()
        );
        (used > least).then_some(sentence)
    };
    linux.containers.iter().filter_map(one).collect()
}

/// The one to go next.
pub(super) fn choose(candidates: Vec<Candidate>, resource: Resource) -> Option<Candidate> {
    candidates.into_iter().min_by_key(|c| {
        let above = c.usage.saturating_sub(c.request);
        let within = resource != Resource::Pids && c.usage <= c.request;
        (within, c.priority, Reverse(above), c.uid.clone())
    })
}

pub(super) fn message(short: &Shortage, chosen: &Candidate) -> String {
    let resource = Resource::of(short.signal);
    let head = format!(
        "The node was low on resource: {}. Threshold quantity: {}, available: {}. ",
        resource.name(),
        resource.amount(short.threshold),
        resource.amount(short.available)
    );
    head + &chosen.blamed.concat()
}

#[cfg(test)]
mod tests {
    use runtime::cri::{
        ContainerAttributes, LinuxPodSandboxStats, MemoryUsage, ProcessUsage, UInt64Value,
    };
    use serde_json::json;

    use super::*;

    fn named(uid: &str, priority: i32, usage: u64, request: u64) -> Candidate {
        Candidate { uid: uid.into(), priority, usage, request, ..Candidate::default() }
    }

    fn order(mut all: Vec<Candidate>, resource: Resource) -> Vec<String> {
        let mut order = Vec::new();
        while let Some(next) = choose(all.clone(), resource) {
            all.retain(|c| c.uid != next.uid);
            order.push(next.uid);
        }
        order
    }

    #[test]
    fn those_above_their_request_go_first_then_the_least_important_then_the_furthest_above() {
        let all = vec![
            named("within", -10, 90, 100),
            named("important", 10, 500, 100),
            named("near", 0, 150, 100),
            named("far", 0, 250, 100),
        ];
        assert_eq!(order(all.clone(), Resource::Memory), ["far", "near", "important", "within"]);
        assert_eq!(order(all, Resource::Pids), ["within", "far", "near", "important"]);
    }

    fn pod() -> Pod {
        let requests = json!({"requests": {"memory": "64Mi"}});
        serde_json::from_value(json!({
            "metadata": {"name": "p", "uid": "u"},
            "spec": {"containers": [{"name": "a", "resources": requests}, {"name": "b"}]},
        }))
        .unwrap()
    }

    fn stats() -> PodSandboxStats {
        let value = |value| Some(UInt64Value { value });
        let container = |name: &str, bytes| ContainerStats {
            attributes: Some(ContainerAttributes {
                labels: [(labels::CONTAINER_NAME.to_owned(), name.to_owned())].into(),
                ..ContainerAttributes::default()
            }),
            memory: Some(MemoryUsage { working_set_bytes: value(bytes), ..MemoryUsage::default() }),
            ..ContainerStats::default()
        };
        let linux = LinuxPodSandboxStats {
            memory: Some(MemoryUsage {
                working_set_bytes: value(70 << 20),
                ..MemoryUsage::default()
            }),
            process: Some(ProcessUsage { process_count: value(7), ..ProcessUsage::default() }),
            containers: vec![container("a", 60 << 20), container("b", 10 << 20)],
            ..LinuxPodSandboxStats::default()
        };
        PodSandboxStats { linux: Some(linux), ..PodSandboxStats::default() }
    }

    #[test]
    fn the_message_blames_what_uses_more_than_it_asked_for() {
        let chosen = candidate(&pod(), &stats(), &OnDisk::default(), Resource::Memory);
        assert_eq!((chosen.usage, chosen.request), (70 << 20, 64 << 20));
        let short = Shortage {
            signal: Signal::Memory,
            is_soft: false,
            threshold: 100 << 20,
            available: 5 << 10,
        };
        assert_eq!(
            message(&short, &chosen),
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 5Ki. \
             Container b was using 10Mi, request is 0, has larger consumption of memory. "
        );
        let pids = candidate(&pod(), &stats(), &OnDisk::default(), Resource::Pids);
        assert_eq!((pids.usage, pids.blamed.len()), (7, 0));
    }
}
