//! What a pod asks of a node and what a node has: cpu in thousandths, the rest in units.
//!
//! A pod's request is the sum of its containers and sidecars, or what its init containers need at
//! their peak if that is more, plus the runtime's overhead.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// What scoring counts for a container that asks for no cpu, in thousandths (upstream's).
const UNASKED_MILLI_CPU: i64 = 100;
/// What scoring counts for a container that asks for no memory, in bytes (upstream's 200 MB).
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

    pub(crate) fn add(&mut self, other: &Resources) {
        self.combine(other, |a, b| a.saturating_add(b));
    }

    pub(crate) fn subtract(&mut self, other: &Resources) {
        self.combine(other, |a, b| a.saturating_sub(b));
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

/// What the pod asks for.
pub(crate) fn pod_requests(pod: &Pod) -> Resources {
    pod.spec.as_ref().map_or_else(Resources::default, |spec| spec_requests(spec, requests_of))
}

/// What scoring counts: like the request, with something for containers that ask for nothing.
pub(crate) fn pod_estimate(pod: &Pod) -> Resources {
    let estimate = |container: &Container| {
        let mut asked = requests_of(container);
        if asked.milli_cpu == 0 {
            asked.milli_cpu = UNASKED_MILLI_CPU;
        }
        if asked.memory == 0 {
            asked.memory = UNASKED_MEMORY;
        }
        asked
    };
    pod.spec.as_ref().map_or_else(Resources::default, |spec| spec_requests(spec, estimate))
}

fn requests_of(container: &Container) -> Resources {
    Resources::of(container.resources.as_ref().and_then(|r| r.requests.as_ref()))
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
    if let Some(whole) = spec.resources.as_ref().and_then(|r| r.requests.as_ref()) {
        replace(&mut total, whole);
    }
    total.add(&Resources::of(spec.overhead.as_ref()));
    total
}

/// Requests of the pod as a whole stand instead of its containers' sum.
fn replace(total: &mut Resources, whole: &BTreeMap<String, Quantity>) {
    let asked = Resources::of(Some(whole));
    if whole.contains_key("cpu") {
        total.milli_cpu = asked.milli_cpu;
    }
    if whole.contains_key("memory") {
        total.memory = asked.memory;
    }
    total.scalar.extend(asked.scalar);
}
