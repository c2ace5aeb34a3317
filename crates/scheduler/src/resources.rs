//! What a pod asks of a node and what a node has: cpu in thousandths, the rest in units.
//!
//! A pod's request is the sum of its containers and sidecars, or what its init containers need at
//! their peak if that is more, plus the runtime's overhead. A container that is being resized counts
//! with the most of what it asks for, what it was promised and what it has.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// What scoring counts for a container that asks for no cpu, in thousandths (upstream's
/// `DefaultMilliCPURequest`).
const UNASKED_MILLI_CPU: i64 = 100;
/// What scoring counts for a container that asks for no memory, in bytes (upstream's
/// `DefaultMemoryRequest`).
const UNASKED_MEMORY: i64 = 200 * 1024 * 1024;

/// Amounts by resource.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Resources {
    pub(crate) milli_cpu: i64,
    pub(crate) memory: i64,
    pub(crate) ephemeral: i64,
    /// Extended resources and huge pages.
    pub(crate) scalar: BTreeMap<String, i64>,
}

impl Resources {
    pub(crate) fn of(list: Option<&BTreeMap<String, Quantity>>) -> Resources {
        let mut out = Resources::default();
        for (name, amount) in list.into_iter().flatten() {
            // The server admits no malformed quantity; one that slips through asks for nothing.
            let amount =
                api::quantity::Quantity::parse(&amount.0).unwrap_or(api::quantity::Quantity::ZERO);
            match name.as_str() {
                "cpu" => out.milli_cpu = amount.milli_value(),
                "memory" => out.memory = amount.value(),
                "ephemeral-storage" => out.ephemeral = amount.value(),
                "pods" => {}
                name => drop(out.scalar.insert(name.to_owned(), amount.value())),
            }
        }
        out
    }

    pub(crate) fn get(&self, name: &str) -> i64 {
        match name {
            "cpu" => self.milli_cpu,
            "memory" => self.memory,
            "ephemeral-storage" => self.ephemeral,
            name => self.scalar.get(name).copied().unwrap_or(0),
        }
    }

    /// Every resource of which there is more than nothing.
    pub(crate) fn nonzero(&self) -> impl Iterator<Item = (&str, i64)> {
        let basic = [
            ("cpu", self.milli_cpu),
            ("memory", self.memory),
            ("ephemeral-storage", self.ephemeral),
        ];
        let scalar = self.scalar.iter().map(|(name, amount)| (name.as_str(), *amount));
        basic.into_iter().chain(scalar).filter(|(_, amount)| *amount != 0)
    }

    pub(crate) fn add(&mut self, other: &Resources) {
        self.combine(other, i64::saturating_add);
    }

    pub(crate) fn subtract(&mut self, other: &Resources) {
        self.combine(other, i64::saturating_sub);
    }

    fn raise_to(&mut self, other: &Resources) {
        self.combine(other, i64::max);
    }

    fn combine(&mut self, other: &Resources, with: fn(i64, i64) -> i64) {
        self.milli_cpu = with(self.milli_cpu, other.milli_cpu);
        self.memory = with(self.memory, other.memory);
        self.ephemeral = with(self.ephemeral, other.ephemeral);
        for (name, amount) in &other.scalar {
            let slot = self.scalar.entry(name.clone()).or_insert(0);
            *slot = with(*slot, *amount);
        }
    }
}

/// Whether the resource is one that device plugins or device classes provide.
pub(crate) fn is_extended(name: &str) -> bool {
    let native = !name.contains('/') || name.contains("kubernetes.io/");
    !native && !name.starts_with("requests.") || name.starts_with(DEVICE_CLASS_PREFIX)
}

/// Names the extended resource that every device class backs; the class' name follows.
pub(crate) const DEVICE_CLASS_PREFIX: &str = "deviceclass.resource.kubernetes.io/";

/// What the pod asks for.
pub(crate) fn pod_requests(pod: &Pod) -> Resources {
    let Some(spec) = &pod.spec else { return Resources::default() };
    let mut total = spec_requests(spec, |container| effective_requests(pod, container));
    if let Some(whole) = spec.resources.as_ref().and_then(|r| r.requests.as_ref()) {
        replace(&mut total, whole);
    }
    total.add(&Resources::of(spec.overhead.as_ref()));
    total
}

/// What the pod asks for by its spec alone, whatever its status says it has.
pub(crate) fn spec_only_requests(pod: &Pod) -> Resources {
    let Some(spec) = &pod.spec else { return Resources::default() };
    let of = |c: &Container| Resources::of(c.resources.as_ref().and_then(|r| r.requests.as_ref()));
    let mut total = spec_requests(spec, of);
    if let Some(whole) = spec.resources.as_ref().and_then(|r| r.requests.as_ref()) {
        replace(&mut total, whole);
    }
    total.add(&Resources::of(spec.overhead.as_ref()));
    total
}

/// What the pod may use by its spec. Overhead comes on top of limits that there are.
pub(crate) fn spec_limits(pod: &Pod) -> Resources {
    let Some(spec) = &pod.spec else { return Resources::default() };
    let of = |c: &Container| Resources::of(c.resources.as_ref().and_then(|r| r.limits.as_ref()));
    let mut total = spec_requests(spec, of);
    if let Some(whole) = spec.resources.as_ref().and_then(|r| r.limits.as_ref()) {
        replace(&mut total, whole);
    }
    let mut overhead = spec.overhead.clone().unwrap_or_default();
    overhead.retain(|name, _| total.get(name) != 0);
    total.add(&Resources::of(Some(&overhead)));
    total
}

/// What scoring counts: like the request, with something for containers that ask for nothing.
pub(crate) fn pod_estimate(pod: &Pod) -> Resources {
    let Some(spec) = &pod.spec else { return Resources::default() };
    let estimate = |container: &Container| {
        let mut asked = effective_requests(pod, container);
        let requests = container.resources.as_ref().and_then(|r| r.requests.as_ref());
        let names = |name: &str| requests.is_some_and(|r| r.contains_key(name));
        if !names("cpu") {
            asked.milli_cpu = UNASKED_MILLI_CPU;
        }
        if !names("memory") {
            asked.memory = UNASKED_MEMORY;
        }
        asked
    };
    let mut total = spec_requests(spec, estimate);
    if let Some(whole) = spec.resources.as_ref().and_then(|r| r.requests.as_ref()) {
        replace(&mut total, whole);
    }
    total.add(&Resources::of(spec.overhead.as_ref()));
    total
}

fn effective_requests(pod: &Pod, container: &Container) -> Resources {
    let asked = Resources::of(container.resources.as_ref().and_then(|r| r.requests.as_ref()));
    let Some(status) = container_status(pod, &container.name) else { return asked };
    let Some(actuated) = &status.resources else { return asked };
    let mut effective = Resources::of(actuated.requests.as_ref());
    effective.raise_to(&Resources::of(status.allocated_resources.as_ref()));
    if !resize_infeasible(pod) {
        effective.raise_to(&asked);
    }
    effective
}

fn container_status<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let all = status.container_statuses.iter().chain(&status.init_container_statuses);
    all.flatten().find(|s| s.name == name)
}

fn resize_infeasible(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    let pending = conditions.iter().find(|c| c.type_ == "PodResizePending");
    pending.is_some_and(|c| c.reason.as_deref() == Some("Infeasible"))
}

fn spec_requests(spec: &PodSpec, of: impl Fn(&Container) -> Resources) -> Resources {
    let mut total = Resources::default();
    for container in &spec.containers {
        total.add(&of(container));
    }
    let (mut sidecars, mut peak) = (Resources::default(), Resources::default());
    for container in spec.init_containers.iter().flatten() {
        let mut needed = of(container);
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars.add(&needed);
            needed = sidecars.clone();
        } else {
            needed.add(&sidecars);
        }
        peak.raise_to(&needed);
    }
    total.add(&sidecars);
    total.raise_to(&peak);
    total
}

/// Requests of the pod as a whole (cpu, memory, huge pages) replace its containers' sum.
fn replace(total: &mut Resources, whole: &BTreeMap<String, Quantity>) {
    let asked = Resources::of(Some(whole));
    if whole.contains_key("cpu") {
        total.milli_cpu = asked.milli_cpu;
    }
    if whole.contains_key("memory") {
        total.memory = asked.memory;
    }
    total.scalar.extend(asked.scalar.into_iter().filter(|(n, _)| n.starts_with("hugepages-")));
}
