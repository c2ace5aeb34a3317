//! The allocation that a claim's status gets.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm};
use k8s_openapi::api::resource::v1::{
    AllocationResult, DeviceAllocationConfiguration, DeviceAllocationResult,
    DeviceRequestAllocationResult, ResourceClaim,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

use crate::capacity::Amounts;
use crate::request::Entry;
use crate::slice::{Device, Slice};

/// A device that the search picked for a request.
#[derive(Debug)]
pub(crate) struct Picked<'a> {
    pub(crate) slice: &'a Slice,
    pub(crate) device: &'a Device,
    /// The request and the alternative, as places.
    pub(crate) request: usize,
    pub(crate) alternative: usize,
    /// A share, with its id and what it takes.
    pub(crate) share: Option<(String, Amounts)>,
}

/// `request`, or `request/alternative`.
fn reference(entry: &Entry<'_>, alternative: usize) -> String {
    match entry.has_alternatives {
        true => format!("{}/{}", entry.name, entry.wants[alternative].name),
        false => entry.name.to_owned(),
    }
}

fn result(entries: &[Entry<'_>], picked: &Picked<'_>) -> DeviceRequestAllocationResult {
    let entry = &entries[picked.request];
    let want = &entry.wants[picked.alternative];
    let device = picked.device;
    let text = |(name, amount): (&String, &api::quantity::Quantity)| {
        (name.clone(), Text(amount.to_string()))
    };
    let consumed = picked.share.as_ref().filter(|(_, amounts)| !amounts.is_empty());
    DeviceRequestAllocationResult {
        request: reference(entry, picked.alternative),
        driver: device.id.driver.to_string(),
        pool: device.id.pool.to_string(),
        device: device.id.device.to_string(),
        admin_access: want.admin_access,
        tolerations: want.tolerations.cloned(),
        binding_conditions: device.binding_conditions.clone(),
        binding_failure_conditions: device.binding_failure_conditions.clone(),
        share_id: picked.share.as_ref().map(|(id, _)| id.clone()),
        consumed_capacity: consumed.map(|(_, amounts)| amounts.iter().map(text).collect()),
    }
}

/// Configurations of the classes, each once with the requests that use it, then those of the claim that
/// concern what was chosen.
fn configuration(
    claim: &ResourceClaim,
    entries: &[Entry<'_>],
) -> Vec<DeviceAllocationConfiguration> {
    let mut all: Vec<DeviceAllocationConfiguration> = Vec::new();
    let mut of_class: HashMap<&str, std::ops::Range<usize>> = HashMap::new();
    for entry in entries {
        let class = &entry.wants[entry.chosen].class;
        let name = class.metadata.name.as_deref().unwrap_or("");
        let request = reference(entry, entry.chosen);
        if let Some(known) = of_class.get(name) {
            for config in &mut all[known.clone()] {
                config.requests.get_or_insert_default().push(request.clone());
            }
            continue;
        }
        let begin = all.len();
        let configs = class.spec.config.iter().flatten();
        all.extend(configs.map(|config| DeviceAllocationConfiguration {
            source: "FromClass".into(),
            requests: Some(vec![request.clone()]),
            opaque: config.opaque.clone(),
        }));
        of_class.insert(name, begin..all.len());
    }
    let configs = claim.spec.devices.iter().flat_map(|d| d.config.iter().flatten());
    for config in configs {
        let requests = config.requests.as_deref().unwrap_or_default();
        let named = |entry: &Entry<'_>| {
            requests.iter().any(|r| r == entry.name || *r == reference(entry, entry.chosen))
        };
        if requests.is_empty() || entries.iter().any(named) {
            all.push(DeviceAllocationConfiguration {
                source: "FromClaim".into(),
                requests: config.requests.clone(),
                opaque: config.opaque.clone(),
            });
        }
    }
    all
}

/// The nodes on which all of the devices can be used; none when that is everywhere.
fn node_selector(picked: &[Picked<'_>], node: &str) -> Result<Option<NodeSelector>, String> {
    let mut term = NodeSelectorTerm::default();
    for one in picked {
        let placement =
            if one.slice.per_device { &one.device.placement } else { &one.slice.placement };
        if placement.node.is_some() || one.device.binds_to_node {
            let name = NodeSelectorRequirement {
                key: "metadata.name".into(),
                operator: "In".into(),
                values: Some(vec![node.to_owned()]),
            };
            term = NodeSelectorTerm { match_fields: Some(vec![name]), match_expressions: None };
            return Ok(Some(NodeSelector { node_selector_terms: vec![term] }));
        }
        let Some(selector) = &placement.selector else { continue };
        match selector.node_selector_terms.as_slice() {
            [] => {}
            [own] => {
                merge(&mut term.match_fields, own.match_fields.as_deref());
                merge(&mut term.match_expressions, own.match_expressions.as_deref());
            }
            many => {
                let count = many.len();
                return Err(format!("unsupported ResourceSlice.NodeSelector with {count} terms"));
            }
        }
    }
    let says_something = term.match_fields.is_some() || term.match_expressions.is_some();
    Ok(says_something.then(|| NodeSelector { node_selector_terms: vec![term] }))
}

fn merge(
    into: &mut Option<Vec<NodeSelectorRequirement>>,
    from: Option<&[NodeSelectorRequirement]>,
) {
    for new in from.unwrap_or_default() {
        let known = into.iter().flatten().any(|old| same(old, new));
        if !known {
            into.get_or_insert_default().push(new.clone());
        }
    }
}

fn same(a: &NodeSelectorRequirement, b: &NodeSelectorRequirement) -> bool {
    let values = |r: &NodeSelectorRequirement| {
        let mut values = r.values.clone().unwrap_or_default();
        values.sort();
        values.dedup();
        values
    };
    a.key == b.key && a.operator == b.operator && values(a) == values(b)
}

pub(crate) fn allocation(
    claim: &ResourceClaim,
    entries: &[Entry<'_>],
    picked: &[Picked<'_>],
    node: &str,
) -> Result<AllocationResult, String> {
    let config = configuration(claim, entries);
    Ok(AllocationResult {
        allocation_timestamp: None,
        devices: Some(DeviceAllocationResult {
            config: (!config.is_empty()).then_some(config),
            results: Some(picked.iter().map(|one| result(entries, one)).collect()),
        }),
        node_selector: node_selector(picked, node)?,
    })
}
