//! Nodes.

use std::collections::HashSet;

use api::names;
use serde_json::Value;

use super::pod::EFFECTS;
use crate::check::At;
use crate::formats;
use crate::shared::quantity;
use crate::{Kind, PLAIN};

pub(crate) static KIND: Kind =
    Kind { default, create, update, status: update, anew: true, ..PLAIN };

fn default(node: &mut Value) {
    pod_cidrs(&mut node["spec"]);
    let status = &mut node["status"];
    if status["allocatable"].is_null() && !status["capacity"].is_null() {
        status["allocatable"] = status["capacity"].clone();
    }
    if let Some(map) = status.as_object_mut() {
        map.retain(|_, value| !value.is_null());
    }
}

/// The one range and the list of ranges follow each other.
fn pod_cidrs(spec: &mut Value) {
    let Some(map) = spec.as_object_mut() else { return };
    let one =
        map.get("podCIDR").and_then(Value::as_str).filter(|c| !c.is_empty()).map(str::to_owned);
    let first =
        map.get("podCIDRs").and_then(|l| l.get(0)).and_then(Value::as_str).map(str::to_owned);
    match (one, first) {
        (Some(one), first) if first.as_ref() != Some(&one) => {
            map.insert("podCIDRs".into(), vec![one].into());
        }
        (None, Some(first)) => drop(map.insert("podCIDR".into(), first.into())),
        _ => {}
    }
}

fn create(node: &At<'_>) {
    annotations(node);
    taints(node);
    resources(node);
    declared_features(node);
    let spec = node.get("spec");
    let ranges = spec.get("podCIDRs");
    ranges.items().for_each(|range| range.named(formats::cidr));
    if ranges.len() > 1 {
        let parsed: Vec<_> =
            ranges.items().filter_map(|r| formats::sloppy_cidr(r.text())).collect();
        let dual = parsed.iter().any(|r| r.0.is_ipv4()) && parsed.iter().any(|r| r.0.is_ipv6());
        if parsed.len() < ranges.len() {
            let bad = ranges.items().find(|r| formats::sloppy_cidr(r.text()).is_none());
            let bad = bad.map(|r| r.text().to_owned()).unwrap_or_default();
            ranges.report("InternalError", format!("Internal error: invalid PodCIDRs. failed to check with dual stack with error:invalid CIDR[{bad}]:<nil> (invalid CIDR address: {bad})"));
        }
        if !dual || ranges.len() > 2 {
            ranges.invalid("may specify no more than one CIDR for each IP family");
        }
    }
}

fn annotations(node: &At<'_>) {
    let meta = node.get("metadata");
    let annotations = meta.get("annotations");
    const TAINTS: &str = "scheduler.alpha.kubernetes.io/taints";
    let text = annotations.key(TAINTS);
    if !text.is_empty()
        && let Err(e) = serde_json::from_str::<Value>(text.text())
    {
        annotations.invalid_as(&TAINTS.into(), &e.to_string());
    }
}

/// Upstream places them in the metadata.
fn taints(node: &At<'_>) {
    let (meta, spec) = (node.get("metadata"), node.get("spec"));
    let list = meta.get("taints");
    let list = list.with(spec.value().get("taints").unwrap_or(&Value::Null));
    let mut seen: HashSet<(String, String)> = HashSet::new();
    for taint in list.items() {
        let (key, value, effect) = (taint.get("key"), taint.get("value"), taint.get("effect"));
        key.named(names::qualified_name);
        let faults = names::label_value(value.text());
        if !faults.is_empty() {
            value.invalid(&faults.join(";"));
        }
        effect.need_one_of(&EFFECTS);
        let own = (key.text().to_owned(), effect.text().to_owned());
        if seen.contains(&own) {
            taint.duplicate_struct("core.Taint", "taints must be unique by key and effect pair");
        }
        seen.insert(own);
    }
}

fn resources(node: &At<'_>) {
    let status = node.get("status");
    for what in ["capacity", "allocatable"] {
        let list = status.get(what);
        for (name, amount) in list.entries() {
            let at = list.get(name);
            quantity::amount(&at.with(amount.value()), name);
        }
    }
}

fn is_feature(name: &str) -> bool {
    let mut parts = name.split('/');
    let first = parts.next().unwrap_or("");
    let word = |part: &str, first: fn(&u8) -> bool| {
        part.as_bytes().first().is_some_and(first)
            && part.bytes().all(|c| c.is_ascii_alphanumeric())
    };
    word(first, u8::is_ascii_uppercase) && parts.all(|part| word(part, u8::is_ascii_alphabetic))
}

fn declared_features(node: &At<'_>) {
    let status = node.get("status");
    let list = status.get("declaredFeatures");
    let names: Vec<String> = list.items().map(|f| f.text().to_owned()).collect();
    for (at, feature) in list.items().enumerate() {
        let name = feature.text();
        if name.len() > 253 {
            feature.invalid(&format!(
                "invalid feature name {name:?}: must be no more than 253 characters"
            ));
        } else if !is_feature(name) {
            feature.invalid(&format!("invalid feature name {name:?}: must start with an UpperCamelCase segment, with subsequent segments separated by '/' (e.g., MyFeature or MyFeature/mySubFeature), and contain only alphanumeric characters and slashes"));
        }
        let Some(next) = names.get(at + 1) else { continue };
        let place = list.index(at + 1);
        if name == next {
            place.duplicate();
        } else if name > next.as_str() {
            place.invalid("list must be sorted alphabetically");
        }
    }
}

fn update(node: &At<'_>) {
    annotations(node);
    resources(node);
    declared_features(node);
    let (spec, status) = (node.get("spec"), node.get("status"));
    let addresses = status.get("addresses");
    let mut known = HashSet::new();
    for address in addresses.items() {
        if !known.insert(address.value().to_string()) {
            address.duplicate_struct("core.NodeAddress", "");
        }
    }
    let Some(old) = spec.old() else { return };
    const ONCE: &str = "node updates may not change podCIDR except from \"\" to valid";
    let ranges = spec.get("podCIDRs");
    let before = old["podCIDRs"].as_array().map_or(&[][..], Vec::as_slice);
    if !before.is_empty() {
        if before.len() != ranges.len() {
            ranges.forbidden(ONCE);
        } else {
            let changed =
                before.iter().zip(ranges.items()).filter(|(old, new)| *old != new.value());
            changed.for_each(|_| ranges.forbidden(ONCE));
        }
    }
    let provider = spec.get("providerID");
    let given = old["providerID"].as_str().unwrap_or("");
    if !given.is_empty() && provider.text() != given {
        provider.forbidden("node updates may not change providerID except from \"\" to valid");
    }
    config_source(&spec.get("configSource"));
    taints(node);
    let id = spec.get("externalID");
    if id.text() != old["externalID"].as_str().unwrap_or("") {
        id.forbidden("may not be updated");
    }
}

/// Where a kubelet's configuration came from (no longer used, still checked).
fn config_source(source: &At<'_>) {
    if source.is_absent() {
        return;
    }
    let map = source.get("configMap");
    if map.is_absent() {
        return source.invalid_struct(
            "core.NodeConfigSource",
            "exactly one reference subfield must be non-nil",
        );
    }
    for field in ["uid", "resourceVersion"] {
        if !map.get(field).is_empty() {
            map.get(field).forbidden(&format!("{field} must not be set in spec"));
        }
    }
    type Rule = fn(&str) -> Vec<String>;
    let rules: [(&str, Rule); 3] = [
        ("namespace", names::dns_label),
        ("name", names::dns_subdomain),
        ("kubeletConfigKey", formats::config_key),
    ];
    for (field, rule) in rules {
        if map.get(field).need() {
            map.get(field).named(rule);
        }
    }
}
