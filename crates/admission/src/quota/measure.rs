//! What an object costs, by kind.

use std::collections::{BTreeMap, BTreeSet};

use api::names;
use api::quantity::Quantity;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use validation::{items, text};

use super::scopes::Scopes;
use super::{Amounts, add, amounts};
use crate::limits::pod_total;

const BY_STORAGE_CLASS: &str = ".storageclass.storage.k8s.io/";
const BY_DEVICE_CLASS: &str = ".deviceclass.resource.k8s.io/devices";
const DEVICE_CLASS: &str = "deviceclass.resource.kubernetes.io/";
const REQUESTS: &str = "requests.";
const HUGE: &str = "hugepages-";
/// Devices that a claim for all of them may get (the API's AllocationResultsMaxSize).
const ALL_DEVICES: i64 = 32;

/// Plain names of old, and the core resource each counts.
const PLAIN: [(&str, &str); 19] = [
    ("pods", "pods"),
    ("cpu", "pods"),
    ("memory", "pods"),
    ("ephemeral-storage", "pods"),
    ("requests.cpu", "pods"),
    ("requests.memory", "pods"),
    ("requests.ephemeral-storage", "pods"),
    ("limits.cpu", "pods"),
    ("limits.memory", "pods"),
    ("limits.ephemeral-storage", "pods"),
    ("services", "services"),
    ("services.nodeports", "services"),
    ("services.loadbalancers", "services"),
    ("persistentvolumeclaims", "persistentvolumeclaims"),
    ("requests.storage", "persistentvolumeclaims"),
    ("configmaps", "configmaps"),
    ("resourcequotas", "resourcequotas"),
    ("replicationcontrollers", "replicationcontrollers"),
    ("secrets", "secrets"),
];

/// The group and resource whose objects a name in a quota counts, if it counts any.
pub fn resource_of(name: &str) -> Option<(String, String)> {
    let core = |resource: &str| Some((String::new(), resource.to_owned()));
    if let Some((_, resource)) = PLAIN.iter().find(|(plain, _)| *plain == name) {
        return core(resource);
    }
    if let Some(counted) = name.strip_prefix("count/") {
        let (resource, group) = counted.split_once('.').unwrap_or((counted, ""));
        return Some((group.to_owned(), resource.to_owned()));
    }
    if let Some((_, what)) = name.split_once(BY_STORAGE_CLASS)
        && matches!(what, "persistentvolumeclaims" | "requests.storage")
    {
        return core("persistentvolumeclaims");
    }
    if name.ends_with(BY_DEVICE_CLASS) {
        return Some(("resource.k8s.io".into(), "resourceclaims".into()));
    }
    let asked = name.strip_prefix(REQUESTS);
    let huge = asked.unwrap_or(name).starts_with(HUGE);
    let foreign = name.contains('/') && !name.contains("kubernetes.io/");
    let extended = asked.is_some_and(|asked| foreign || asked.starts_with(DEVICE_CLASS));
    if huge || extended { core("pods") } else { None }
}

/// What an object costs, and which scopes it is in.
#[derive(Debug, Clone)]
pub struct Measured {
    /// While it is stored.
    stored: Amounts,
    /// While it runs, too; only of pods.
    running: Amounts,
    /// From when on it counts as running no more, though it is still there.
    until: Option<Timestamp>,
    scopes: Scopes,
}

/// Equal in all that a quota sees.
impl PartialEq for Measured {
    fn eq(&self, other: &Measured) -> bool {
        self.until == other.until
            && self.scopes == other.scopes
            && super::same(&self.stored, &other.stored)
            && super::same(&self.running, &other.running)
    }
}

impl Measured {
    pub fn of(group: &str, resource: &str, object: &Value) -> Measured {
        let count = match group {
            "" => format!("count/{resource}"),
            group => format!("count/{resource}.{group}"),
        };
        let mut stored = Amounts::from([(count, Quantity::from_units(1))]);
        let (mut running, mut until) = (Amounts::new(), None);
        match (group, resource) {
            ("", "pods") if !finished(object) => {
                running = pod(object);
                until = runs_until(&object["metadata"]);
            }
            ("", "services") => stored.extend(service(&object["spec"])),
            ("", "persistentvolumeclaims") => stored.extend(claim(object)),
            ("resource.k8s.io", "resourceclaims") => stored.extend(devices(&object["spec"])),
            ("", "configmaps" | "resourcequotas" | "replicationcontrollers" | "secrets") => {
                stored.insert(resource.to_owned(), Quantity::from_units(1));
            }
            _ => {}
        }
        Measured { stored, running, until, scopes: Scopes::of(group, resource, object) }
    }

    pub fn usage(&self, now: Timestamp) -> Amounts {
        let mut usage = self.stored.clone();
        if self.until.is_none_or(|until| now <= until) {
            add(&mut usage, &self.running);
        }
        usage
    }

    /// When the cost shrinks by itself.
    pub fn until(&self) -> Option<Timestamp> {
        self.until
    }

    /// Whether the object is in all scopes of a quota's spec.
    pub fn matches(&self, spec: &Value) -> bool {
        self.scopes.fit(spec)
    }
}

fn finished(pod: &Value) -> bool {
    matches!(text(&pod["status"]["phase"]), "Failed" | "Succeeded")
}

/// A pod that is long overdue may be on a lost node; its owner is not charged for that.
fn runs_until(meta: &Value) -> Option<Timestamp> {
    let at: Timestamp = meta["deletionTimestamp"].as_str()?.parse().ok()?;
    let grace = SignedDuration::from_secs(meta["deletionGracePeriodSeconds"].as_i64()?);
    at.checked_add(grace).ok()
}

fn pod(pod: &Value) -> Amounts {
    let effective = effective(pod);
    let overhead = amounts(&pod["spec"]["overhead"]);
    let mut requests = amounts(&pod_total(&effective, "requests"));
    add(&mut requests, &overhead);
    let mut limits = amounts(&pod_total(&effective, "limits"));
    for (name, amount) in &mut limits {
        if let Some(more) = overhead.get(name).filter(|_| !amount.is_zero()) {
            *amount = *amount + *more;
        }
    }
    compute(&requests, &limits)
}

/// The parts of a spec that say what a pod takes, with containers at the most of what they shall
/// have and what they have.
fn effective(pod: &Value) -> Value {
    let (spec, status) = (&pod["spec"], &pod["status"]);
    let infeasible = items(status, "conditions")
        .any(|c| c["type"] == "PodResizePending" && c["reason"] == "Infeasible");
    let containers = |list: &str, statuses: &str| -> Vec<Value> {
        let of = |container: &Value| {
            let sidecar = container["restartPolicy"] == "Always";
            let found = items(status, statuses).find(|s| s["name"] == container["name"]);
            let found = found.filter(|s| !s["resources"].is_null());
            let resources = match found.filter(|_| sidecar || list == "containers") {
                Some(found) => in_effect(&container["resources"], found, infeasible),
                None => container["resources"].clone(),
            };
            json!({"restartPolicy": container["restartPolicy"], "resources": resources})
        };
        items(spec, list).map(of).collect()
    };
    json!({
        "containers": containers("containers", "containerStatuses"),
        "initContainers": containers("initContainers", "initContainerStatuses"),
        "resources": spec["resources"],
    })
}

fn in_effect(wanted: &Value, status: &Value, infeasible: bool) -> Value {
    let most = |lists: &[&Value]| {
        let mut most = Amounts::new();
        for (name, amount) in lists.iter().flat_map(|list| amounts(list)) {
            let have = most.entry(name).or_insert(amount);
            if *have < amount {
                *have = amount;
            }
        }
        super::to_json(&most)
    };
    let has = &status["resources"];
    let skip = usize::from(infeasible);
    let requests = [&wanted["requests"], &has["requests"], &status["allocatedResources"]];
    let limits = [&wanted["limits"], &has["limits"]];
    json!({"requests": most(&requests[skip..]), "limits": most(&limits[skip..])})
}

/// The names under which requests and limits are counted.
fn compute(requests: &Amounts, limits: &Amounts) -> Amounts {
    let mut usage = Amounts::from([("pods".to_owned(), Quantity::from_units(1))]);
    for (name, amount) in requests {
        let plain = matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage");
        if plain || name.starts_with(HUGE) {
            usage.insert(name.clone(), *amount);
            usage.insert(format!("{REQUESTS}{name}"), *amount);
        } else if is_extended(name) {
            usage.insert(format!("{REQUESTS}{name}"), *amount);
        }
    }
    for name in ["cpu", "memory", "ephemeral-storage"] {
        usage.extend(limits.get(name).map(|amount| (format!("limits.{name}"), *amount)));
    }
    usage
}

fn is_extended(name: &str) -> bool {
    let foreign = name.contains('/') && !name.contains("kubernetes.io/");
    let sound = || names::qualified_name(&format!("{REQUESTS}{name}")).is_empty();
    (foreign && !name.starts_with(REQUESTS) && sound()) || name.starts_with(DEVICE_CLASS)
}

/// What a pod's containers must state under quotas on `names` and do not: cpu and memory only.
pub(super) fn missing(pod: &Value, names: &[String]) -> Option<String> {
    if whole(&pod["spec"]["resources"]) {
        return None;
    }
    let stated = |name: &&String| {
        let base = name.trim_start_matches(REQUESTS).trim_start_matches("limits.");
        matches!(base, "cpu" | "memory")
    };
    let names: Vec<&String> = names.iter().filter(stated).collect();
    let mut lacking: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for list in ["containers", "initContainers"] {
        for container in items(&pod["spec"], list) {
            let resources = &container["resources"];
            let has = compute(&amounts(&resources["requests"]), &amounts(&resources["limits"]));
            for name in names.iter().filter(|name| !has.contains_key(name.as_str())) {
                lacking.entry(name.as_str()).or_default().insert(text(&container["name"]));
            }
        }
    }
    let parts: Vec<String> = lacking
        .into_iter()
        .map(|(name, of)| format!("{name} for: {}", of.into_iter().collect::<Vec<_>>().join(",")))
        .collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// Whether resources are stated for the pod as a whole.
fn whole(resources: &Value) -> bool {
    ["requests", "limits"].iter().any(|kind| {
        let mut names = resources[kind].as_object().into_iter().flatten().map(|(name, _)| name);
        names.any(|name| matches!(name.as_str(), "cpu" | "memory") || name.starts_with(HUGE))
    })
}

fn service(spec: &Value) -> Amounts {
    let ports = items(spec, "ports").count();
    let chosen = || items(spec, "ports").filter(|p| p["nodePort"].as_i64().unwrap_or(0) != 0);
    let (node_ports, balancers) = match text(&spec["type"]) {
        "NodePort" => (ports, 0),
        "LoadBalancer" if spec["allocateLoadBalancerNodePorts"] == false => (chosen().count(), 1),
        "LoadBalancer" => (ports, 1),
        _ => (0, 0),
    };
    let units = |n: usize| Quantity::from_units(n.try_into().unwrap_or(i64::MAX));
    Amounts::from([
        ("services".to_owned(), units(1)),
        ("services.nodeports".to_owned(), units(node_ports)),
        ("services.loadbalancers".to_owned(), units(balancers)),
    ])
}

fn claim(claim: &Value) -> Amounts {
    let beta = &claim["metadata"]["annotations"]["volume.beta.kubernetes.io/storage-class"];
    let class = beta.as_str().unwrap_or_else(|| text(&claim["spec"]["storageClassName"]));
    let mut usage = Amounts::new();
    let mut charge = |what: &str, amount: Quantity| {
        usage.insert(what.to_owned(), amount);
        if !class.is_empty() {
            usage.insert(format!("{class}{BY_STORAGE_CLASS}{what}"), amount);
        }
    };
    charge("persistentvolumeclaims", Quantity::from_units(1));
    let size = |list: &Value| amounts(list).get("storage").copied();
    if let Some(asked) = size(&claim["spec"]["resources"]["requests"]) {
        let given = size(&claim["status"]["allocatedResources"]).filter(|given| *given > asked);
        charge("requests.storage", rounded(given.unwrap_or(asked)));
    }
    usage
}

/// Whole bytes.
fn rounded(size: Quantity) -> Quantity {
    let up = Quantity::from_units(size.value());
    if (up - size).is_zero() { size } else { up }
}

/// Devices by class; of alternatives, the most that may come of each.
fn devices(spec: &Value) -> Amounts {
    let mut usage = Amounts::new();
    let cost = |request: &Value| {
        let devices = match text(&request["allocationMode"]) {
            "ExactCount" => request["count"].as_i64().unwrap_or(0),
            "All" => ALL_DEVICES,
            _ => 0,
        };
        let class = text(&request["deviceClassName"]);
        (format!("{class}{BY_DEVICE_CLASS}"), Quantity::from_units(devices))
    };
    for request in items(&spec["devices"], "requests") {
        let mut most = Amounts::new();
        let exactly = Some(&request["exactly"]).filter(|e| !e.is_null());
        for (class, devices) in items(request, "firstAvailable").chain(exactly).map(cost) {
            let have = most.entry(class).or_insert(devices);
            if *have < devices {
                *have = devices;
            }
        }
        add(&mut usage, &most);
    }
    usage
}
