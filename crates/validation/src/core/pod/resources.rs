//! Requests, limits and claims of containers and of pods as a whole.

use std::collections::HashSet;

use api::names;
use api::quantity::Quantity;
use serde_json::Value;

use super::Pod;
use crate::check::At;
use crate::shared::quantity::{self, is_huge_page, is_overcommit_allowed, parse};

type NameRule = fn(&At<'_>, &str);

pub(super) fn of_container(resources: &At<'_>, pod: &Pod<'_>) {
    requirements(resources, quantity::container_resource_name);
    claims(&resources.get("claims"), pod);
}

/// What a pod needs beside its containers: limits of their own.
pub(crate) fn overhead(at: &At<'_>, amounts: &Value) {
    let (mut huge, mut compute) = (false, false);
    let limits = at.get("limits");
    for (name, amount) in amounts.as_object().into_iter().flatten() {
        let entry = limits.key(name);
        limit(&entry.with(amount), name, quantity::container_resource_name);
        huge |= is_huge_page(name);
        compute |= matches!(name.as_str(), "cpu" | "memory");
    }
    if huge && !compute {
        at.forbidden("HugePages require cpu or memory");
    }
}

fn limit(entry: &At<'_>, name: &str, rule: NameRule) {
    rule(entry, name);
    quantity::amount(entry, name);
    if is_huge_page(name) {
        quantity::huge_pages(entry, name);
    }
}

fn requirements(resources: &At<'_>, rule: NameRule) {
    let (limits, requests) = (resources.get("limits"), resources.get("requests"));
    for (name, entry) in limits.entries() {
        limit(&entry, name, rule);
    }
    for (name, entry) in requests.entries() {
        rule(&entry, name);
        quantity::amount(&entry, name);
        against_limit(&limits, &requests, name, entry.value());
        quantity::huge_pages(&entry, name);
    }
    let names = || limits.entries().chain(requests.entries()).map(|(name, _)| name);
    if names().any(is_huge_page) && !names().any(|n| matches!(n, "cpu" | "memory")) {
        resources.forbidden("HugePages require cpu or memory");
    }
}

fn against_limit(limits: &At<'_>, requests: &At<'_>, name: &str, asked: &Value) {
    let Some(asked) = parse(asked) else { return };
    let Some(most) = parse(&limits.value()[name]) else {
        if !is_overcommit_allowed(name) {
            limits.required("Limit must be set for non overcommitable resources");
        }
        return;
    };
    let shown = Value::from(asked.to_string());
    let differs = asked.partial_cmp(&most) != Some(std::cmp::Ordering::Equal);
    if differs && !is_overcommit_allowed(name) {
        requests.invalid_as(&shown, &format!("must be equal to {name} limit of {most}"));
    } else if asked > most {
        requests
            .invalid_as(&shown, &format!("must be less than or equal to {name} limit of {most}"));
    }
}

fn claims(list: &At<'_>, pod: &Pod<'_>) {
    let mut seen: HashSet<String> = HashSet::new();
    for claim in list.items() {
        let (name, request) = (claim.get("name"), claim.get("request"));
        let name = name.text();
        if name.is_empty() {
            claim.required("");
            continue;
        }
        if seen.contains(name) {
            claim.duplicate_as(&name.into());
        } else {
            let mut key = name.to_owned();
            if !request.is_empty() {
                request.named(names::dns_label);
                key = format!("{name}/{}", request.text());
            }
            let within = |s: &String| s.split_once('/').is_some_and(|(of, _)| of == name);
            if seen.contains(&key) {
                claim.duplicate_as(&key.as_str().into());
            } else if request.is_empty() && seen.iter().any(within) {
                claim.duplicate_as(&name.into());
            }
            seen.insert(key);
        }
        unknown_claim(&claim, name, pod);
    }
}

fn unknown_claim(claim: &At<'_>, name: &str, pod: &Pod<'_>) {
    if pod.claims.contains(&name) {
        return;
    }
    let mut known = pod.claims.clone();
    known.sort_unstable();
    known.dedup();
    let which = match known.is_empty() {
        true => " which is empty".to_owned(),
        false => format!(": {}", known.join(", ")),
    };
    let detail = format!("must be one of the names in pod.spec.resourceClaims{which}");
    claim.with(&name.into()).not_found_of(&detail);
}

pub(super) fn resize_policy(list: &At<'_>, pod: &Pod<'_>) {
    let mut seen: HashSet<String> = HashSet::new();
    for policy in list.items() {
        let (resource, restart) = (policy.get("resourceName"), policy.get("restartPolicy"));
        if seen.contains(resource.text()) {
            policy.duplicate_as(&resource.text().into());
        }
        seen.insert(resource.text().to_owned());
        // Reported at the list.
        list.with(resource.value()).need_one_of(&["cpu", "memory"]);
        list.with(restart.value()).need_one_of(&["NotRequired", "RestartContainer"]);
        if pod.restart == "Never" && restart.text() != "NotRequired" {
            let detail = "must be 'NotRequired' when pod `restartPolicy` is 'Never'";
            list.invalid_as(&restart.text().into(), detail);
        }
    }
}

/// Resources of the pod as a whole.
pub(super) fn of_pod(spec: &At<'_>, pod: &Pod<'_>) {
    let resources = spec.get("resources");
    if resources.is_absent() {
        return;
    }
    if pod.os == Some("windows") {
        return resources.forbidden("may not be set for a windows pod");
    }
    let claims_at = resources.get("claims");
    if !claims_at.is_absent() {
        claims_at.forbidden("claims may not be set for Resources at pod-level");
    }
    requirements(&resources, quantity::pod_resource_name);
    claims(&claims_at, pod);
    consistent(spec, &resources);
}

/// A pod asks for no less than its containers together.
fn consistent(spec: &At<'_>, resources: &At<'_>) {
    for (name, entry) in resources.get("requests").entries() {
        let together = aggregate(spec.value(), "requests", name);
        if parse(entry.value()).is_some_and(|own| together > own) {
            let shown = parse(entry.value()).map(|q| q.to_string()).unwrap_or_default();
            let detail = format!(
                "must be greater than or equal to aggregate container requests of {together}"
            );
            entry.invalid_as(&shown.into(), &detail);
        }
    }
    let limits = resources.get("limits");
    for (name, entry) in limits.entries().filter(|(name, _)| is_huge_page(name)) {
        let together = aggregate(spec.value(), "limits", name);
        if let Some(own) = parse(entry.value()).filter(|own| together > *own) {
            let detail = format!(
                "must be greater than or equal to aggregate container limits of {together}"
            );
            entry.invalid_as(&own.to_string().into(), &detail);
        }
    }
    for (at, container) in spec.get("containers").items().enumerate() {
        for (name, limit) in container.get("resources").get("limits").entries() {
            let (Some(own), Some(most)) = (parse(limit.value()), parse(&limits.value()[name]))
            else {
                continue;
            };
            if own > most {
                let containers = resources.get("containers");
                let detail = format!("must be less than or equal to pod limits of {most}");
                let container = containers.index(at);
                container.key(name).get("limits").invalid_as(&own.to_string().into(), &detail);
            }
        }
    }
}

/// What all containers of a pod ask for at once: sidecars run beside the others, each init
/// container before them.
pub(crate) fn aggregate(spec: &Value, what: &str, name: &str) -> Quantity {
    let amount = |c: &Value| parse(&c["resources"][what][name]).unwrap_or(Quantity::ZERO);
    let list = |key: &str| spec[key].as_array().map_or(&[][..], Vec::as_slice);
    let mut running = list("containers").iter().fold(Quantity::ZERO, |sum, c| sum + amount(c));
    let mut sidecars = Quantity::ZERO;
    let mut starting = Quantity::ZERO;
    for container in list("initContainers") {
        let own = amount(container);
        let at_once = if container["restartPolicy"] == "Always" {
            running = running + own;
            sidecars = sidecars + own;
            sidecars
        } else {
            sidecars + own
        };
        if at_once > starting {
            starting = at_once;
        }
    }
    if starting > running { starting } else { running }
}
