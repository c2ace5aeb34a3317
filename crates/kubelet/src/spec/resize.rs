//! Pods whose resources change while they run: what they ask for, what the node has given them, and what
//! their cgroups have.
//!
//! The API's spec is the wish. The node's allocation follows it when there is room (`crate::intake`
//! decides), and the pod's actor sees the pod with its allocation only. What a running container has is
//! written on it when it is made and remembered when it is changed (`crate::pod::resize`).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::quantity::{millis, units};
use super::spec_of;

/// What of a container's resources can change while it runs: thousandths of a CPU and bytes; 0 is none.
/// A limit that only the pod has is the container's too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Amounts {
    pub(crate) cpu_request: i64,
    pub(crate) cpu_limit: i64,
    pub(crate) memory_request: i64,
    pub(crate) memory_limit: i64,
}

type List = Option<BTreeMap<String, Quantity>>;

fn amount(list: &List, name: &str) -> i64 {
    let read = if name == "cpu" { millis } else { units };
    let value = list.as_ref().and_then(|l| l.get(name)).and_then(read).unwrap_or(0);
    i64::try_from(value).unwrap_or(i64::MAX)
}

impl Amounts {
    pub(crate) fn of(spec: &PodSpec, container: &Container) -> Amounts {
        let own = container.resources.clone().unwrap_or_default();
        let whole = spec.resources.as_ref().and_then(|r| r.limits.clone());
        let limit = |name: &str| match amount(&own.limits, name) {
            0 => amount(&whole, name),
            limit => limit,
        };
        Amounts {
            cpu_request: amount(&own.requests, "cpu"),
            cpu_limit: limit("cpu"),
            memory_request: amount(&own.requests, "memory"),
            memory_limit: limit("memory"),
        }
    }

    /// The container's resources as the API shows them, with these amounts in place of the spec's.
    pub(crate) fn shown(&self, spec: &PodSpec, container: &Container) -> ResourceRequirements {
        let mut shown = container.resources.clone().unwrap_or_default();
        if *self == Amounts::of(spec, container) {
            return shown;
        }
        let put = |list: &mut List, name: &str, value: i64| {
            if let Some(entry) = list.as_mut().and_then(|l| l.get_mut(name))
                && value > 0
            {
                let bytes = || memory_text(u64::try_from(value).unwrap_or(0));
                *entry = Quantity(if name == "cpu" { cpu_text(value) } else { bytes() });
            }
        };
        put(&mut shown.requests, "cpu", self.cpu_request);
        put(&mut shown.requests, "memory", self.memory_request);
        put(&mut shown.limits, "cpu", self.cpu_limit);
        put(&mut shown.limits, "memory", self.memory_limit);
        shown
    }
}

fn cpu_text(millis: i64) -> String {
    if millis % 1000 == 0 { (millis / 1000).to_string() } else { format!("{millis}m") }
}

/// Bytes as the API writes them.
pub(crate) fn memory_text(bytes: u64) -> String {
    let suffixes = ["", "Ki", "Mi", "Gi", "Ti", "Pi"];
    let (mut value, mut at) = (bytes, 0);
    while value != 0 && value % 1024 == 0 && at + 1 < suffixes.len() {
        (value, at) = (value / 1024, at + 1);
    }
    format!("{value}{}", suffixes[at])
}

/// The resources of a pod and of its containers that can be changed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Allocation {
    #[serde(default)]
    pod: Option<ResourceRequirements>,
    #[serde(default)]
    containers: BTreeMap<String, ResourceRequirements>,
}

fn all(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.init_containers.iter().flatten().chain(&spec.containers)
}

fn same(a: Option<&ResourceRequirements>, b: Option<&ResourceRequirements>) -> bool {
    let empty = ResourceRequirements::default();
    let (a, b) = (a.unwrap_or(&empty), b.unwrap_or(&empty));
    ["cpu", "memory"].iter().all(|name| {
        amount(&a.requests, name) == amount(&b.requests, name)
            && amount(&a.limits, name) == amount(&b.limits, name)
    })
}

impl Allocation {
    /// What the spec asks for.
    pub(crate) fn of(pod: &Pod) -> Allocation {
        let spec = spec_of(pod);
        let containers =
            all(&spec).map(|c| (c.name.clone(), c.resources.clone().unwrap_or_default())).collect();
        Allocation { pod: spec.resources.clone(), containers }
    }

    /// Whether the spec asks for this.
    pub(crate) fn fits(&self, pod: &Pod) -> bool {
        let spec = spec_of(pod);
        same(self.pod.as_ref(), spec.resources.as_ref())
            && all(&spec).all(|c| {
                let own = self.containers.get(&c.name);
                own.is_none() || same(own, c.resources.as_ref())
            })
    }

    /// Whether the spec asks for another amount of this resource for some container.
    pub(crate) fn changes(&self, pod: &Pod, name: &str) -> bool {
        let asked = |r: Option<&ResourceRequirements>| r.map_or(0, |r| amount(&r.requests, name));
        all(&spec_of(pod)).any(|c| {
            let own = self.containers.get(&c.name);
            own.is_some() && asked(own) != asked(c.resources.as_ref())
        })
    }

    /// The pod with this in place of what its spec asks for.
    pub(crate) fn apply(&self, pod: &Pod) -> Pod {
        let mut pod = pod.clone();
        let Some(spec) = pod.spec.as_mut() else { return pod };
        spec.resources.clone_from(&self.pod);
        let containers = spec.init_containers.iter_mut().flatten().chain(&mut spec.containers);
        for container in containers {
            if let Some(own) = self.containers.get(&container.name) {
                let none = *own == ResourceRequirements::default() && container.resources.is_none();
                container.resources = (!none).then(|| own.clone());
            }
        }
        pod
    }
}

/// Why a change is not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// There is no room yet.
    Deferred,
    /// Room would not help.
    Infeasible,
}

impl Verdict {
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Verdict::Deferred => "Deferred",
            Verdict::Infeasible => "Infeasible",
        }
    }
}

/// A change that the node does not make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pending {
    pub(crate) verdict: Verdict,
    pub(crate) message: String,
    /// Of the pod's spec that asks for it.
    pub(crate) generation: Option<i64>,
}

/// What the decision on a change means for the pod's actor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct News {
    pub(crate) pending: Option<Pending>,
    /// The generation of the spec that has been given what it asks for.
    pub(crate) allocated: Option<i64>,
}

/// The sentence of an event about a change, with what the pod asks for.
pub(crate) fn summary(what: &str, pod: &Pod, generation: i64, error: &str) -> String {
    let spec = spec_of(pod);
    let list = |containers: &[Container]| -> Vec<_> {
        let one = |c: &Container| json!({"name": c.name, "resources": c.resources.clone().unwrap_or_default()});
        containers.iter().map(one).collect()
    };
    let mut text = String::from("{");
    let init = list(spec.init_containers.as_deref().unwrap_or_default());
    if !init.is_empty() {
        text += &format!("\"initContainers\":{},", json!(init));
    }
    text +=
        &format!("\"containers\":{},\"generation\":{generation}", json!(list(&spec.containers)));
    if !error.is_empty() {
        text += &format!(",\"error\":{}", json!(error));
    }
    format!("{what}: {text}}}")
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap()
    }

    fn one(resources: Value) -> Pod {
        pod(json!({"containers": [{"name": "c", "resources": resources}]}))
    }

    #[test]
    fn an_allocation_takes_the_place_of_the_wish() {
        let old = one(
            json!({"requests": {"cpu": "1", "memory": "64Mi"}, "limits": {"example.org/x": "1"}}),
        );
        let new = one(
            json!({"requests": {"cpu": "2", "memory": "64Mi"}, "limits": {"example.org/x": "1"}}),
        );
        let given = Allocation::of(&old);
        assert!(given.fits(&old) && !given.fits(&new));
        assert_eq!(given.apply(&new), old);
        assert!(given.fits(&one(json!({"requests": {"cpu": "1000m", "memory": "65536Ki"}}))));
        let written = serde_json::to_string(&given).unwrap();
        assert_eq!(serde_json::from_str::<Allocation>(&written).unwrap(), given);
        let none = one(Value::Null);
        assert_eq!(Allocation::of(&none).apply(&none), none);
    }

    #[test]
    fn a_pods_own_limit_is_each_containers() {
        let pod = pod(
            json!({"resources": {"limits": {"cpu": "2"}}, "containers": [{"name": "c", "resources": {"limits": {"memory": "1Gi"}}}]}),
        );
        let spec = pod.spec.as_ref().unwrap();
        let amounts = Amounts::of(spec, &spec.containers[0]);
        assert_eq!((amounts.cpu_limit, amounts.memory_limit), (2000, 1 << 30));
    }

    #[test]
    fn amounts_are_shown_as_the_api_writes_them() {
        let pod =
            one(json!({"requests": {"cpu": "2", "memory": "1Gi"}, "limits": {"memory": "1Gi"}}));
        let spec = pod.spec.as_ref().unwrap();
        let had =
            Amounts { cpu_request: 250, cpu_limit: 0, memory_request: 3 << 20, memory_limit: 1000 };
        let shown = json!(had.shown(spec, &spec.containers[0]));
        let expected =
            json!({"requests": {"cpu": "250m", "memory": "3Mi"}, "limits": {"memory": "1000"}});
        assert_eq!(shown, expected);
    }

    #[test]
    fn events_tell_what_is_asked_for() {
        let text = summary("Pod resize started", &one(json!({"requests": {"cpu": "2"}})), 3, "");
        let said = r#"Pod resize started: {"containers":[{"name":"c","resources":{"requests":{"cpu":"2"}}}],"generation":3}"#;
        assert_eq!(text, said);
    }
}
