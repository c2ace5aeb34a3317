//! Requests and limits as cgroup values: shares, quotas, limits, OOM scores, QoS classes.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use runtime::cri::{HugepageLimit, LinuxContainerResources};

use super::quantity::{millis, units};
use super::{is_sidecar, spec_of, uid_of};
use crate::admission::SYSTEM_CRITICAL_PRIORITY;

/// CFS period, microseconds: the kernel's and upstream's default.
pub(crate) const CPU_PERIOD: i64 = 100_000;
/// The kernel refuses quotas below 1 ms.
const CPU_QUOTA_MIN: i64 = 1000;
/// The kernel's least and greatest weight.
const SHARES_MIN: i64 = 2;
const SHARES_MAX: i64 = 262_144;
const OOM_GUARANTEED: i64 = -997;
const OOM_BEST_EFFORT: i64 = 1000;

type List = BTreeMap<String, Quantity>;

/// What the node has, as far as containers' values depend on it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct NodeResources {
    pub(crate) memory_bytes: i64,
    pub(crate) allocatable_memory_bytes: i64,
    pub(crate) allocatable_cpu_millis: i64,
    pub(crate) allocatable_storage_bytes: i64,
    /// What burstable pods may share of the swap; 0 when none may use it.
    pub(crate) swap_bytes: i64,
    /// Sizes of huge pages that the machine knows.
    pub(crate) page_sizes: Vec<u64>,
    /// The machine has cgroup v2 alone.
    pub(crate) unified: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Qos {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl Qos {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Qos::Guaranteed => "Guaranteed",
            Qos::Burstable => "Burstable",
            Qos::BestEffort => "BestEffort",
        }
    }
}

fn list_value(list: Option<&List>, name: &str, of: fn(&Quantity) -> Option<i128>) -> i64 {
    let value = list.and_then(|l| l.get(name)).and_then(of).unwrap_or(0);
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn cpu(list: Option<&List>) -> i64 {
    list_value(list, "cpu", millis)
}

fn memory(list: Option<&List>) -> i64 {
    list_value(list, "memory", units)
}

pub(crate) fn requests(container: &Container) -> Option<&List> {
    container.resources.as_ref().and_then(|r| r.requests.as_ref())
}

pub(crate) fn limits(container: &Container) -> Option<&List> {
    container.resources.as_ref().and_then(|r| r.limits.as_ref())
}

/// What the pod's regular containers ask for together, in whole units.
pub(crate) fn total_request(pod: &Pod, name: &str) -> u64 {
    let spec = spec_of(pod);
    let sum: i64 = spec.containers.iter().map(|c| list_value(requests(c), name, units)).sum();
    u64::try_from(sum).unwrap_or(0)
}

/// The pod's quality of service, by its own resources or those of its containers.
pub(crate) fn qos(pod: &Pod) -> Qos {
    if let Some(class) = pod.status.as_ref().and_then(|s| s.qos_class.as_deref()) {
        match class {
            "Guaranteed" => return Qos::Guaranteed,
            "Burstable" => return Qos::Burstable,
            "BestEffort" => return Qos::BestEffort,
            _ => {}
        }
    }
    let spec = spec_of(pod);
    let lists: Vec<(Option<&List>, Option<&List>)> = match &spec.resources {
        Some(own) => vec![(own.requests.as_ref(), own.limits.as_ref())],
        None => {
            let all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
            all.map(|c| (requests(c), limits(c))).collect()
        }
    };
    let any = lists.iter().any(|(r, l)| cpu(*r) + memory(*r) + cpu(*l) + memory(*l) > 0);
    let guaranteed = lists.iter().all(|(r, l)| {
        let same = |asked: i64, limit: i64| limit > 0 && (asked == limit || asked == 0);
        same(cpu(*r), cpu(*l)) && same(memory(*r), memory(*l))
    });
    match (any, guaranteed) {
        (false, _) => Qos::BestEffort,
        (true, true) => Qos::Guaranteed,
        (true, false) => Qos::Burstable,
    }
}

pub(crate) fn shares(milli_cpu: i64) -> i64 {
    if milli_cpu == 0 {
        SHARES_MIN
    } else {
        (milli_cpu * 1024 / 1000).clamp(SHARES_MIN, SHARES_MAX)
    }
}

pub(crate) fn quota(milli_cpu: i64) -> i64 {
    if milli_cpu == 0 { 0 } else { (milli_cpu * CPU_PERIOD / 1000).max(CPU_QUOTA_MIN) }
}

fn oom_score(pod: &Pod, container: &Container, node: &NodeResources) -> i64 {
    let spec = spec_of(pod);
    if spec.priority.is_some_and(|p| p >= SYSTEM_CRITICAL_PRIORITY) {
        return OOM_GUARANTEED;
    }
    match qos(pod) {
        Qos::Guaranteed => return OOM_GUARANTEED,
        Qos::BestEffort => return OOM_BEST_EFFORT,
        Qos::Burstable => {}
    }
    let capacity = node.memory_bytes.max(1);
    let score = |request: i64| 1000 - 1000 * (request / 1024) / (capacity / 1024).max(1);
    let mut adjust = score(memory(requests(container)));
    if is_sidecar(container) {
        let least = spec.containers.iter().map(|c| memory(requests(c))).min().unwrap_or(0);
        adjust = adjust.min(score(least));
    }
    adjust.clamp(1000 + OOM_GUARANTEED, OOM_BEST_EFFORT - 1)
}

/// The swap a container may use (`LimitedSwap`): its part of the machine's swap is the part of the
/// memory that it asks for. Only burstable containers that ask for less than their limit have any.
fn swap(pod: &Pod, container: &Container, node: &NodeResources) -> i64 {
    let (asked, limit) = (memory(requests(container)), memory(limits(container)));
    let is_system = spec_of(pod).priority.is_some_and(|p| p >= SYSTEM_CRITICAL_PRIORITY)
        || is_static_by_its_words(pod);
    let none = is_system || qos(pod) != Qos::Burstable || asked == limit;
    if none || asked > node.memory_bytes || node.memory_bytes == 0 {
        return 0;
    }
    let part = i128::from(asked) * i128::from(node.swap_bytes) / i128::from(node.memory_bytes);
    i64::try_from(part).unwrap_or(0)
}

/// Whoever says so without being static gets less, not more.
fn is_static_by_its_words(pod: &Pod) -> bool {
    let annotations = pod.metadata.annotations.as_ref();
    let source = annotations.and_then(|all| all.get("kubernetes.io/config.source"));
    source.is_some_and(|source| source != "api")
}

/// The prefix of huge pages as a resource: `hugepages-2Mi`.
pub(crate) const HUGE_PAGES: &str = "hugepages-";

/// A page's size as the kernel names the files of the controller `hugetlb`.
pub(crate) fn page_name(bytes: u64) -> String {
    match bytes {
        b if b >= 1 << 30 => format!("{}GB", b >> 30),
        b if b >= 1 << 20 => format!("{}MB", b >> 20),
        b => format!("{}KB", b >> 10),
    }
}

/// The size of the pages that a resource is made of.
fn page_size(resource: &str) -> Option<u64> {
    let size = resource.strip_prefix(HUGE_PAGES)?;
    u64::try_from(units(&Quantity(size.to_owned()))?).ok()
}

/// Bytes of huge pages in a list, by the pages' size.
fn huge_pages(list: Option<&List>) -> BTreeMap<u64, u64> {
    let one = |(name, amount): (&String, &Quantity)| {
        Some((page_size(name)?, u64::try_from(units(amount)?).ok()?))
    };
    list.into_iter().flatten().filter_map(one).collect()
}

/// Of each size that the machine knows what the container may use: nothing without a limit.
fn container_pages(container: &Container, node: &NodeResources) -> Vec<HugepageLimit> {
    let own = huge_pages(limits(container));
    let limit = |size: &u64| HugepageLimit {
        page_size: page_name(*size),
        limit: own.get(size).copied().unwrap_or(0),
    };
    node.page_sizes.iter().map(limit).collect()
}

/// What regular containers ask for together; sizes that none asks for have no limit.
fn pod_pages(pod: &Pod) -> Vec<HugepageLimit> {
    let mut all: BTreeMap<u64, u64> = BTreeMap::new();
    for container in &spec_of(pod).containers {
        for (size, bytes) in huge_pages(requests(container)) {
            let sum = all.entry(size).or_default();
            *sum = sum.saturating_add(bytes);
        }
    }
    let limit = |(size, limit)| HugepageLimit { page_size: page_name(size), limit };
    all.into_iter().map(limit).collect()
}

/// The container's own cgroup values.
pub(crate) fn container_resources(
    pod: &Pod,
    container: &Container,
    node: &NodeResources,
) -> LinuxContainerResources {
    let (asked, limit) = (requests(container), limits(container));
    // A limit without a request is the request too.
    let cpu_request = match asked.is_some_and(|r| r.contains_key("cpu")) {
        true => cpu(asked),
        false => cpu(limit),
    };
    // A container without a limit of its own has the pod's.
    let spec = spec_of(pod);
    let whole = spec.resources.as_ref().and_then(|r| r.limits.as_ref());
    let limited = |of: fn(Option<&List>) -> i64| Some(of(limit)).filter(|v| *v > 0);
    let memory_limit = limited(memory).unwrap_or_else(|| memory(whole));
    LinuxContainerResources {
        cpu_period: CPU_PERIOD,
        cpu_quota: quota(limited(cpu).unwrap_or_else(|| cpu(whole))),
        cpu_shares: shares(cpu_request),
        memory_limit_in_bytes: memory_limit,
        // No swap beyond the limit.
        memory_swap_limit_in_bytes: memory_limit,
        oom_score_adj: oom_score(pod, container, node),
        hugepage_limits: container_pages(container, node),
        unified: unified(pod, container, node),
        ..LinuxContainerResources::default()
    }
}

/// A container is not left half killed, and swaps what it may. cgroup v1 has no such switches: runc refuses
/// them there.
fn unified(pod: &Pod, container: &Container, node: &NodeResources) -> BTreeMap<String, String> {
    if !node.unified {
        return BTreeMap::new();
    }
    BTreeMap::from([
        ("memory.oom.group".to_owned(), "1".to_owned()),
        ("memory.swap.max".to_owned(), swap(pod, container, node).to_string()),
    ])
}

/// The pod's cgroup values: its own as a whole, or the larger of its regular containers' sum and any
/// init container.
pub(crate) fn pod_resources(pod: &Pod) -> LinuxContainerResources {
    let spec = spec_of(pod);
    let own = |list: Option<&List>, of: fn(Option<&List>) -> i64| {
        Some(of(list)).filter(|value| *value > 0)
    };
    let whole = spec.resources.as_ref();
    let (asked, limits_of_pod) =
        (whole.and_then(|r| r.requests.as_ref()), whole.and_then(|r| r.limits.as_ref()));
    let cpu_request = own(asked, cpu).or_else(|| {
        pod_total(pod, |c| {
            let asked = cpu(requests(c));
            Some(if asked == 0 { cpu(limits(c)) } else { asked })
        })
    });
    let limit = |of: fn(Option<&List>) -> i64| {
        let sum = || pod_total(pod, |c| Some(of(limits(c))).filter(|v| *v > 0));
        own(limits_of_pod, of).or_else(sum).unwrap_or(0)
    };
    let memory_limit = limit(memory);
    LinuxContainerResources {
        cpu_period: CPU_PERIOD,
        cpu_quota: quota(limit(cpu)),
        cpu_shares: shares(cpu_request.unwrap_or(0)),
        memory_limit_in_bytes: memory_limit,
        // Containers have limits of their own for swap.
        memory_swap_limit_in_bytes: if memory_limit > 0 { -1 } else { 0 },
        hugepage_limits: pod_pages(pod),
        ..LinuxContainerResources::default()
    }
}

/// The values of a pod's own group that can change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct PodLimits {
    pub(crate) memory: i64,
    pub(crate) cpu_quota: i64,
    pub(crate) cpu_shares: i64,
}

pub(crate) fn pod_limits(pod: &Pod) -> PodLimits {
    let all = pod_resources(pod);
    let (memory, cpu_quota) = (all.memory_limit_in_bytes, all.cpu_quota);
    PodLimits { memory, cpu_quota, cpu_shares: all.cpu_shares }
}

/// `None` when one container has no value: then the pod as a whole has none.
fn pod_total(pod: &Pod, of: impl Fn(&Container) -> Option<i64>) -> Option<i64> {
    let spec = spec_of(pod);
    let mut sidecars = 0;
    let mut init = 0;
    for c in spec.init_containers.iter().flatten() {
        if is_sidecar(c) {
            sidecars += of(c)?;
            init = init.max(sidecars);
        } else {
            init = init.max(sidecars + of(c)?);
        }
    }
    let mut regular = sidecars;
    for c in &spec.containers {
        regular += of(c)?;
    }
    Some(regular.max(init))
}

/// The pod's cgroup below `root`, laid out as upstream's cgroupfs driver does.
pub(crate) fn cgroup_parent(root: &str, pod: &Pod) -> String {
    let class = match qos(pod) {
        Qos::Guaranteed => "",
        Qos::Burstable => "/burstable",
        Qos::BestEffort => "/besteffort",
    };
    format!("{root}{class}/pod{}", uid_of(pod))
}
