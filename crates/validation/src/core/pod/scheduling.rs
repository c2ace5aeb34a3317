//! Where a pod may run: affinity, tolerations, spreading, gates.

use std::collections::{HashMap, HashSet};

use api::names;
use serde_json::Value;

use crate::check::At;
use crate::formats;
use crate::shared::{LabelRules, label_selector, node_selector, node_selector_term};

pub(super) fn affinity(affinity: &At<'_>) {
    let node = affinity.get("nodeAffinity");
    let required = node.get("requiredDuringSchedulingIgnoredDuringExecution");
    if !required.is_absent() {
        node_selector(&required, false);
    }
    for term in node.get("preferredDuringSchedulingIgnoredDuringExecution").items() {
        weight(&term.get("weight"));
        node_selector_term(&term.get("preference"), true);
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let pods = affinity.get(kind);
        for term in pods.get("requiredDuringSchedulingIgnoredDuringExecution").items() {
            pod_term(&term);
        }
        for term in pods.get("preferredDuringSchedulingIgnoredDuringExecution").items() {
            weight(&term.get("weight"));
            pod_term(&term.get("podAffinityTerm"));
        }
    }
}

fn weight(weight: &At<'_>) {
    if !(1..=100).contains(&weight.number()) {
        weight.invalid_number("must be in the range 1-100");
    }
}

fn pod_term(term: &At<'_>) {
    label_selector(&term.get("labelSelector"), LabelRules::default());
    label_selector(&term.get("namespaceSelector"), LabelRules::default());
    for name in term.get("namespaces").items() {
        for fault in names::dns_label(name.text()) {
            term.get("namespace").invalid_as(name.value(), &fault);
        }
    }
    label_keys(term);
    let key = term.get("topologyKey");
    if key.is_empty() {
        key.required("can not be empty");
    }
    key.named(names::qualified_name);
}

/// `matchLabelKeys` and `mismatchLabelKeys` beside a selector.
fn label_keys(term: &At<'_>) {
    let selector = &term.value()["labelSelector"];
    for field in ["matchLabelKeys", "mismatchLabelKeys"] {
        let keys = term.get(field);
        if keys.is_empty() {
            continue;
        }
        if selector.is_null() {
            keys.forbidden("must not be specified when labelSelector is not set");
        } else {
            keys.items().for_each(|key| key.named(names::qualified_name));
        }
    }
    let listed = |field: &str, key: &Value| {
        term.value()[field].as_array().and_then(|l| l.iter().rposition(|k| k == key))
    };
    let mut in_selector: Vec<&str> = selector["matchLabels"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(k, _)| k.as_str())
        .collect();
    for requirement in selector["matchExpressions"].as_array().into_iter().flatten() {
        let key = requirement["key"].as_str().unwrap_or("");
        if let Some(at) = listed("matchLabelKeys", &requirement["key"])
            && in_selector.contains(&key)
        {
            let detail = "exists in both matchLabelKeys and labelSelector";
            term.index(at).invalid_as(&requirement["key"], detail);
        }
        in_selector.push(key);
    }
    for key in term.get("matchLabelKeys").items() {
        if listed("mismatchLabelKeys", key.value()).is_some() {
            key.invalid("exists in both matchLabelKeys and mismatchLabelKeys");
        }
    }
}

pub(crate) const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

pub(crate) fn tolerations(list: &At<'_>) {
    for toleration in list.items() {
        let (key, operator) = (toleration.get("key"), toleration.get("operator"));
        let (value, effect) = (toleration.get("value"), toleration.get("effect"));
        if !key.is_empty() {
            key.named(names::qualified_name);
        } else if operator.text() != "Exists" {
            operator.invalid_text("operator must be Exists when `key` is empty, which means \"match all values and all keys\"");
        }
        if !toleration.get("tolerationSeconds").is_absent() && effect.text() != "NoExecute" {
            effect.invalid_text("effect must be 'NoExecute' when `tolerationSeconds` is set");
        }
        let tell = |detail: &str| operator.invalid_as(&value.text().into(), detail);
        match operator.text() {
            "" | "Equal" => {
                let faults = names::label_value(value.text());
                if !faults.is_empty() {
                    tell(&faults.join(";"));
                }
            }
            "Exists" if !value.is_empty() => {
                tell("value must be empty when `operator` is 'Exists'");
            }
            "Exists" => {}
            "Lt" | "Gt" => operator.not_supported(&["Equal", "Exists", "Lt", "Gt"]),
            _ => operator.not_supported(&["Equal", "Exists"]),
        }
        if !effect.is_empty() {
            effect.one_of(&EFFECTS);
        }
    }
}

pub(super) fn spread(list: &At<'_>) {
    // Upstream looks from each at those that follow: all but the last of a pair are duplicates.
    let pair =
        |item: &Value| (item["topologyKey"].to_string(), item["whenUnsatisfiable"].to_string());
    let mut left: HashMap<(String, String), usize> = HashMap::new();
    for item in list.value().as_array().into_iter().flatten() {
        *left.entry(pair(item)).or_default() += 1;
    }
    for constraint in list.items() {
        let skew = constraint.get("maxSkew");
        if skew.number() <= 0 {
            skew.invalid_number("must be greater than zero");
        }
        let (key, action) = (constraint.get("topologyKey"), constraint.get("whenUnsatisfiable"));
        if key.is_empty() {
            key.required("can not be empty");
        }
        action.one_of(&["DoNotSchedule", "ScheduleAnyway"]);
        let following = left.entry(pair(constraint.value())).or_insert(1);
        *following -= 1;
        if *following > 0 {
            let shown = format!("{{{}, {}}}", key.text(), action.text());
            constraint.get("{topologyKey, whenUnsatisfiable}").duplicate_as(&shown.into());
        }
        min_domains(&constraint.get("minDomains"), action.text());
        for policy in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            constraint.get(policy).one_of_if_set(&["Honor", "Ignore"]);
        }
        label_keys(&constraint);
        label_selector(&constraint.get("labelSelector"), LabelRules::default());
    }
}

fn min_domains(at: &At<'_>, action: &str) {
    let Some(domains) = at.int() else { return };
    if domains <= 0 {
        at.invalid("must be greater than zero");
    }
    if action != "DoNotSchedule" {
        at.invalid(&format!(
            "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}"
        ));
    }
}

pub(super) fn gates(list: &At<'_>) {
    let mut seen: HashSet<String> = HashSet::new();
    for gate in list.items() {
        let name = gate.get("name");
        for fault in names::qualified_name(name.text()) {
            gate.invalid_as(&name.text().into(), &fault);
        }
        if seen.contains(name.text()) {
            gate.duplicate_as(&name.text().into());
        }
        seen.insert(name.text().to_owned());
    }
}

pub(super) fn dns(spec: &At<'_>) {
    let config = spec.get("dnsConfig");
    let (servers, searches) = (config.get("nameservers"), config.get("searches"));
    if spec.get("dnsPolicy").text() == "None" {
        if config.is_absent() {
            return config.required("must provide `dnsConfig` when `dnsPolicy` is None");
        } else if servers.is_empty() {
            return servers
                .required("must provide at least one DNS nameserver when `dnsPolicy` is None");
        }
    }
    if servers.len() > 3 {
        servers.invalid("must not have more than 3 nameservers");
    }
    servers.items().for_each(|server| server.named(formats::ip));
    if searches.len() > 32 {
        searches.invalid("must not have more than 32 search paths");
    }
    let length: usize = searches.items().map(|s| s.text().len() + 1).sum();
    if length > 2049 {
        searches.invalid(
            "must not have more than 2048 characters (including spaces) in the search list",
        );
    }
    for search in searches.items().filter(|s| s.text() != ".") {
        let name = search.text().strip_suffix('.').unwrap_or(search.text());
        for fault in formats::search_domain(name) {
            search.invalid_as(&name.into(), &fault);
        }
    }
    for option in config.get("options").items() {
        if option.get("name").is_empty() {
            option.required("must not be empty");
        }
    }
}

pub(super) fn host_aliases(list: &At<'_>) {
    for alias in list.items() {
        alias.get("ip").named(formats::ip);
        alias.get("hostnames").items().for_each(|name| name.named(names::dns_subdomain));
    }
}
