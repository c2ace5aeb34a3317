//! Storage classes and what CSI drivers say of themselves.

use std::collections::{BTreeMap, HashMap, HashSet};

mod attachment;
mod driver;

use api::names;
use serde_json::Value;

use crate::check::At;
use crate::shared::quantity::parse;
use crate::shared::{LabelRules, label_selector};
use crate::{Kind, PLAIN};

pub(crate) use attachment::KIND as ATTACHMENT;
pub(crate) use driver::{DRIVER, NODE};

pub(crate) static CLASS: Kind = Kind {
    create: |class| {
        provisioner(&class.get("provisioner"));
        parameters(&class.get("parameters"), true);
        let policy = class.get("reclaimPolicy");
        if !policy.is_empty() {
            policy.one_of(&["Delete", "Retain"]);
        }
        let mode = class.get("volumeBindingMode");
        if mode.is_absent() {
            mode.required("");
        } else {
            mode.one_of(&["Immediate", "WaitForFirstConsumer"]);
        }
        topologies(&class.get("allowedTopologies"));
    },
    update: |class| {
        for field in ["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"] {
            let at = class.get(field);
            if at.old().is_some_and(|old| !crate::golang::same(old, at.value())) {
                match field {
                    "provisioner" => at.invalid_text("field is immutable"),
                    _ => at.invalid("field is immutable"),
                }
            }
        }
    },
    anew: true,
    ..PLAIN
};

pub(crate) static ATTRIBUTES: Kind = Kind {
    create: attributes,
    update: |class| {
        for field in ["driverName", "parameters"] {
            if !class.get(field).unchanged() {
                class.get(field).forbidden(&format!("updates to {field} are forbidden."));
            }
        }
        attributes(class);
    },
    again: true,
    ..PLAIN
};

pub(crate) static CAPACITY: Kind = Kind {
    create: |capacity| {
        label_selector(&capacity.get("nodeTopology"), LabelRules::default());
        for fault in names::dns_subdomain(capacity.get("storageClassName").text()) {
            capacity.get("storageClassName").invalid_text(&fault);
        }
        let amount = capacity.get("capacity");
        if let Some(quantity) = parse(amount.value()).filter(|q| q.is_negative()) {
            let detail = "must be greater than or equal to 0";
            amount.invalid_as(&quantity.to_string().into(), detail);
        }
    },
    update: |capacity| {
        let (topology, class) = (capacity.get("nodeTopology"), capacity.get("storageClassName"));
        topology.immutable();
        if !class.unchanged() {
            class.invalid_text("field is immutable");
        }
    },
    anew: true,
    ..PLAIN
};

fn attributes(class: &At<'_>) {
    provisioner(&class.get("driverName"));
    parameters(&class.get("parameters"), false);
}

fn provisioner(at: &At<'_>) {
    if at.need() {
        for fault in names::qualified_name(&at.text().to_lowercase()) {
            at.invalid_as(&at.text().to_lowercase().into(), &fault);
        }
    }
}

fn parameters(at: &At<'_>, may_be_empty: bool) {
    const SIZE_MAX: usize = 256 * 1024;
    let map = at.value().as_object();
    if map.is_some_and(|m| m.len() > 512) {
        return at.too_long(512);
    }
    let entries = || map.into_iter().flatten();
    for (key, _) in entries().filter(|(key, _)| key.is_empty()) {
        at.invalid_as(&key.as_str().into(), "field can not be empty.");
    }
    let size: usize = entries().map(|(k, v)| k.len() + v.as_str().map_or(0, str::len)).sum();
    if size > SIZE_MAX {
        at.too_long(SIZE_MAX);
    }
    if !may_be_empty && map.is_none_or(|m| m.is_empty()) {
        at.required("must contain at least one key/value pair");
    }
}

/// Faults of one term that equals others: their number grows with the square of the terms.
const SAME_TERMS_MAX: usize = 100;

fn topologies(list: &At<'_>) {
    let mut before: HashMap<BTreeMap<String, Vec<String>>, usize> = HashMap::new();
    for term in list.items() {
        let expressions = term.get("matchLabelExpressions");
        let mut map: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for requirement in expressions.items() {
            let (key, values) = (requirement.get("key"), requirement.get("values"));
            values.need();
            let mut seen: HashSet<String> = HashSet::new();
            for value in values.items() {
                if !seen.insert(value.text().to_owned()) {
                    value.duplicate();
                }
            }
            key.named(names::qualified_name);
            if map.contains_key(key.text()) {
                key.duplicate();
            }
            let mut seen: Vec<String> = seen.into_iter().collect();
            seen.sort_unstable();
            map.insert(key.text().to_owned(), seen);
        }
        // Upstream compares with as many empty terms as there are terms, and with those before.
        let empty = if map.is_empty() { list.len() } else { 0 };
        let equal = before.entry(map).or_default();
        for _ in 0..(empty + *equal).min(SAME_TERMS_MAX) {
            expressions.duplicate_as(&Value::from(""));
        }
        *equal += 1;
    }
}
