//! Who gets which device: one small cluster a test.

mod claims;
mod requests;
mod sharing;

use std::cell::Cell;
use std::sync::Arc;

use k8s_openapi::api::core::v1::NodeSelector;
use k8s_openapi::api::resource::v1::{AllocationResult, DeviceClass, ResourceClaim};
use serde_json::{Value, json};

use crate::{Allocated, Allocator, Environment, Fault, NodeView, Selectors, Slice, Slices};

/// The node `n`, with the label `zone=a`.
fn matches(selector: &NodeSelector) -> bool {
    selector.node_selector_terms.iter().any(|term| {
        term.match_expressions
            .iter()
            .flatten()
            .all(|r| r.key == "zone" && r.values.iter().flatten().any(|value| value == "a"))
    })
}

/// A cluster for one allocation.
pub(super) struct Bed {
    slices: Slices,
    classes: Vec<Arc<DeviceClass>>,
    allocated: Allocated,
}

impl Bed {
    /// With a class `any` without selectors.
    pub(super) fn new(slices: &[Value]) -> Bed {
        let read = |value: &Value| {
            let slice = serde_json::from_value(value.clone()).unwrap();
            Arc::new(Slice::new(&slice).unwrap())
        };
        let mut bed = Bed {
            slices: Slices::new(slices.iter().map(read)),
            classes: Vec::new(),
            allocated: Allocated::default(),
        };
        bed.class("any", json!({}));
        bed
    }

    pub(super) fn class(&mut self, name: &str, spec: Value) {
        let class = json!({"metadata": {"name": name}, "spec": spec});
        self.classes.push(Arc::new(serde_json::from_value(class).unwrap()));
    }

    /// Counts what was allocated earlier.
    pub(super) fn take(&mut self, results: &[AllocationResult]) {
        results.iter().for_each(|result| self.allocated.add(result));
    }

    pub(super) fn give_back(&mut self, results: &[AllocationResult]) {
        results.iter().for_each(|result| self.allocated.remove(result));
    }

    pub(super) fn allocate(
        &self,
        claims: &[Value],
    ) -> Result<Option<Vec<AllocationResult>>, Fault> {
        let shares = Cell::new(0);
        let environment = Environment {
            class: &|name| {
                let is = |c: &&Arc<DeviceClass>| c.metadata.name.as_deref() == Some(name);
                self.classes.iter().find(is).cloned()
            },
            share_id: &|| {
                shares.set(shares.get() + 1);
                format!("share-{}", shares.get())
            },
            is_late: &|| false,
        };
        self.allocate_in(environment, claims)
    }

    pub(super) fn allocate_in(
        &self,
        environment: Environment<'_>,
        claims: &[Value],
    ) -> Result<Option<Vec<AllocationResult>>, Fault> {
        let selectors = Selectors::new();
        let allocator = Allocator {
            slices: &self.slices,
            allocated: &self.allocated,
            selectors: &selectors,
            environment,
        };
        let claims: Vec<Arc<ResourceClaim>> = claims
            .iter()
            .map(|value| Arc::new(serde_json::from_value(value.clone()).unwrap()))
            .collect();
        allocator.allocate(&NodeView { name: "n", matches: &matches }, &claims)
    }

    /// `request=device` of each claim, or why there is nothing.
    pub(super) fn answer(&self, claims: &[Value]) -> String {
        match self.allocate(claims) {
            Ok(Some(results)) => results.iter().map(shown).collect::<Vec<_>>().join("; "),
            Ok(None) => "nothing".into(),
            Err(Fault::Node(why)) => format!("node: {why}"),
            Err(Fault::Claim(why)) => why,
            Err(Fault::Late) => "late".into(),
        }
    }
}

pub(super) fn shown(result: &AllocationResult) -> String {
    let devices = result.devices.iter().flat_map(|d| d.results.iter().flatten());
    let one = devices.map(|r| format!("{}={}", r.request, r.device));
    one.collect::<Vec<_>>().join(" ")
}

/// A slice of driver `d` and pool `p`, alone in its pool, on node `n` unless `extra` says otherwise.
pub(super) fn slice(name: &str, devices: Value, extra: Value) -> Value {
    let mut spec = json!({"driver": "d", "pool": {"name": "p", "generation": 1,
        "resourceSliceCount": 1}, "devices": devices});
    for (key, value) in extra.as_object().unwrap() {
        spec[key] = value.clone();
    }
    let places = ["nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection"];
    if !places.iter().any(|key| spec.get(key).is_some()) {
        spec["nodeName"] = "n".into();
    }
    json!({"metadata": {"name": name}, "spec": spec})
}

/// A claim `ns/c` for devices.
pub(super) fn claim(devices: Value) -> Value {
    json!({"metadata": {"name": "c", "namespace": "ns", "uid": "u"}, "spec": {"devices": devices}})
}

/// A request for devices of class `any`.
pub(super) fn want(name: &str, extra: Value) -> Value {
    let mut exactly = json!({"deviceClassName": "any", "allocationMode": "ExactCount", "count": 1});
    for (key, value) in extra.as_object().unwrap() {
        exactly[key] = value.clone();
    }
    json!({"name": name, "exactly": exactly})
}

/// A selector by expression.
pub(super) fn cel(expression: &str) -> Value {
    json!([{"cel": {"expression": expression}}])
}
