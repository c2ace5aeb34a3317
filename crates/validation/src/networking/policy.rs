//! Network policies.

use serde_json::{Value, json};

use crate::check::At;
use crate::formats::{port_name, sloppy_cidr};
use crate::shared::{LabelRules, label_selector, legacy_cidr, port_number};
use crate::{Kind, PLAIN};

pub(crate) static KIND: Kind = Kind {
    default,
    create: |policy| spec(&policy.get("spec"), &[]),
    update: |policy| {
        let at = policy.get("spec");
        let known = at.old().map(cidrs).unwrap_or_default();
        spec(&at, &known);
    },
    ..PLAIN
};

fn default(object: &mut Value) {
    let Some(spec) = object.get_mut("spec").filter(|s| s.is_object()) else { return };
    let empty = |v: Option<&Value>| v.and_then(Value::as_array).is_none_or(Vec::is_empty);
    if empty(spec.get("policyTypes")) {
        let both = json!(["Ingress", "Egress"]);
        let one = json!(["Ingress"]);
        spec["policyTypes"] = if empty(spec.get("egress")) { one } else { both };
    }
}

/// Networks that were there before, in whatever form.
fn cidrs(spec: &Value) -> Vec<&str> {
    let rules = [("ingress", "from"), ("egress", "to")].into_iter();
    let peers = rules.flat_map(|(way, peers)| {
        let rules = spec[way].as_array().into_iter().flatten();
        rules.flat_map(move |rule| rule[peers].as_array().into_iter().flatten())
    });
    let blocks = peers.map(|peer| &peer["ipBlock"]);
    blocks
        .flat_map(|b| {
            b["cidr"].as_str().into_iter().chain(crate::shared::texts(b.get("except"), None))
        })
        .collect()
}

fn spec(spec: &At<'_>, known: &[&str]) {
    label_selector(&spec.get("podSelector"), LabelRules::default());
    for (way, peers) in [("ingress", "from"), ("egress", "to")] {
        for rule in spec.get(way).items() {
            rule.get("ports").items().for_each(|at| port(&at));
            rule.get(peers).items().for_each(|at| peer(&at, known));
        }
    }
    let types = spec.get("policyTypes");
    if types.len() > 2 {
        return types.invalid("may not specify more than two policyTypes");
    }
    for kind in types.items() {
        kind.one_of(&["Ingress", "Egress"]);
    }
}

fn port(at: &At<'_>) {
    at.get("protocol").one_of_if_set(&["TCP", "UDP", "SCTP"]);
    let (port, end) = (at.get("port"), at.get("endPort"));
    match port.value() {
        Value::Null if !end.is_absent() => {
            end.invalid("may not be specified when `port` is not specified");
        }
        Value::Null => {}
        Value::String(name) => {
            if !end.is_absent() {
                end.invalid("may not be specified when `port` is non-numeric");
            }
            port_name(name).iter().for_each(|fault| port.invalid(fault));
        }
        _ => {
            port_number(&port);
            if end.int().is_some_and(|end| end < port.number()) {
                end.invalid_as(port.value(), "must be greater than or equal to `port`");
            }
            if !end.is_absent() {
                port_number(&end);
            }
        }
    }
}

fn peer(at: &At<'_>, known: &[&str]) {
    let block = at.get("ipBlock");
    let selectors = ["podSelector", "namespaceSelector"];
    let mut found = 0;
    for field in selectors {
        found += usize::from(!at.get(field).is_absent());
        label_selector(&at.get(field), LabelRules::default());
    }
    if !block.is_absent() {
        ip_block(&block, known);
        if found > 0 {
            at.forbidden("may not specify both ipBlock and another peer");
        }
    } else if found == 0 {
        at.required("must specify a peer");
    }
}

fn ip_block(block: &At<'_>, known: &[&str]) {
    let cidr = block.get("cidr");
    if !cidr.need() {
        return;
    }
    legacy_cidr(&cidr, known);
    let Some(whole) = sloppy_cidr(cidr.text()) else { return };
    for except in block.get("except").items() {
        legacy_cidr(&except, known);
        let Some(part) = sloppy_cidr(except.text()) else { continue };
        if !crate::formats::contains(whole, part.0) || whole.1 >= part.1 {
            except.invalid("must be a strict subset of `cidr`");
        }
    }
}
