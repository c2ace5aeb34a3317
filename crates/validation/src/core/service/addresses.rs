//! Cluster IPs and their families: how they agree, and what may become of them.

use std::collections::HashSet;

use std::net::IpAddr;

use serde_json::Value;

use super::{is_headless, needs_health_check};
use crate::check::At;
use crate::formats::sloppy_ip;
use crate::shared::{legacy_ip, texts};

/// Fields about cluster IPs agree with each other.
pub(super) fn related(spec: &At<'_>) {
    if spec.get("type").text() == "ExternalName" {
        return;
    }
    let (ip, ips) = (spec.get("clusterIP"), spec.get("clusterIPs"));
    if ip.is_empty() {
        if !ips.is_empty() {
            ips.invalid("must be empty when `clusterIP` is not specified");
        }
    } else if ips.is_empty() {
        ips.required("");
    } else if ips.index(0).text() != ip.text() {
        ips.invalid("first value must match `clusterIP`");
    }
    families(spec);
    let policies = ["PreferDualStack", "RequireDualStack", "SingleStack"];
    spec.get("ipFamilyPolicy").one_of_if_set(&policies);
    if addresses(&ips) {
        match_families(spec, &ips);
    }
}

fn families(spec: &At<'_>) {
    let list = spec.get("ipFamilies");
    let mut seen: HashSet<String> = HashSet::new();
    for family in list.items() {
        family.one_of(&["IPv4", "IPv6"]);
        if seen.contains(family.text()) {
            family.duplicate();
        }
        seen.insert(family.text().to_owned());
    }
}

/// True when each is an address (or the one `None`).
fn addresses(ips: &At<'_>) -> bool {
    let before = texts(ips.old(), None);
    let mut sound = true;
    for (at, ip) in ips.items().enumerate() {
        if at == 0 && ip.text() == "None" {
            if ips.len() > 1 {
                sound = false;
                ips.invalid("'None' must be the first and only value");
            }
            continue;
        }
        sound &= ip.sound(|| legacy_ip(&ip, &before));
    }
    if ips.len() > 2 {
        ips.invalid("may only hold up to 2 values");
    }
    sound
}

fn match_families(spec: &At<'_>, ips: &At<'_>) {
    let parsed: Vec<IpAddr> = ips.items().filter_map(|ip| sloppy_ip(ip.text())).collect();
    let dual = parsed.iter().any(IpAddr::is_ipv4) && parsed.iter().any(IpAddr::is_ipv6);
    if ips.len() > 1 && !dual {
        ips.invalid("may specify no more than one IP for each IP family");
    }
    if is_headless(spec.value()) {
        return;
    }
    let list = spec.get("ipFamilies");
    for (at, (ip, family)) in ips.items().zip(list.items()).enumerate() {
        let v6 = sloppy_ip(ip.text()).is_some_and(|ip| ip.is_ipv6());
        match (family.text(), v6) {
            ("IPv4", true) | ("IPv6", false) => ip.invalid(&format!(
                "expected an {} value as indicated by `ipFamilies[{at}]`",
                family.text()
            )),
            _ => {}
        }
    }
}

/// What an update may do to addresses, class and health check.
pub(super) fn changes(object: &At<'_>) {
    let spec = object.get("spec");
    let Some(old) = spec.old() else { return };
    let alias = |s: &Value| s["type"] == "ExternalName";
    if !alias(old) && !alias(spec.value()) {
        let (was, is) = (is_headless(old), is_headless(spec.value()));
        if !(was && is) {
            cluster_ips(&spec, old);
        }
        if !was && !is {
            ip_families(&spec, old);
        }
    }
    let balanced = |s: &Value| s["type"] == "LoadBalancer";
    let class = spec.get("loadBalancerClass");
    if balanced(old) && balanced(spec.value()) && !class.unchanged() {
        class.invalid("may not change once set");
    }
    balancer_class(&spec);
    let health = spec.get("healthCheckNodePort");
    if needs_health_check(old) && needs_health_check(spec.value()) && !health.unchanged() {
        health.forbidden("field is immutable");
    }
}

/// Upstream checks the class with the change, and again with the rest.
fn balancer_class(spec: &At<'_>) {
    let class = spec.get("loadBalancerClass");
    if class.is_absent() {
        return;
    }
    if spec.get("type").text() == "LoadBalancer" {
        class.named(api::names::qualified_name);
    } else {
        class.forbidden("may only be used when `type` is 'LoadBalancer'");
    }
}

fn list<'a>(spec: &'a Value, key: &str) -> &'a [Value] {
    spec[key].as_array().map_or(&[], Vec::as_slice)
}

fn released(spec: &At<'_>, what: &str) {
    let policy = spec.get("ipFamilyPolicy");
    if policy.text() != "SingleStack" {
        policy
            .invalid(&format!("must be set to 'SingleStack' when releasing the secondary {what}"));
    }
}

fn cluster_ips(spec: &At<'_>, old: &Value) {
    const SET: &str = "may not change once set";
    let ips = spec.get("clusterIPs");
    let (before, now) = (list(old, "clusterIPs"), list(spec.value(), "clusterIPs"));
    let shown = ips.value();
    let first = ips.index(0);
    if before.len() == now.len() {
        for (at, _) in before.iter().zip(now).enumerate().filter(|(_, (a, b))| a != b) {
            ips.index(at).invalid_as(shown, SET);
        }
    } else if before.len() > now.len() {
        match now.first() {
            None => first.invalid_as(shown, "primary clusterIP can not be unset"),
            Some(ip) if *ip != before[0] => first.invalid_as(shown, SET),
            Some(_) => {}
        }
        if now.len() == 1 {
            released(spec, "clusterIP");
        }
    } else if !before.is_empty() && before[0] != now[0] {
        first.invalid_as(shown, SET);
    }
}

fn ip_families(spec: &At<'_>, old: &Value) {
    const SET: &str = "may not change once set";
    let families = spec.get("ipFamilies");
    let ips = spec.get("clusterIPs");
    let (before, now) = (list(old, "ipFamilies"), list(spec.value(), "ipFamilies"));
    let first = families.index(0);
    let changed = |by: &Value| first.invalid_as(by, SET);
    if before.len() == now.len() {
        before.iter().zip(now).filter(|(a, b)| a != b).for_each(|_| changed(families.value()));
    } else if before.len() > now.len() {
        if ips.is_empty() {
            first.invalid_as(families.value(), "primary ipFamily can not be unset");
        }
        if !now.is_empty() && now[0] != before[0] {
            changed(ips.value());
        }
        if now.len() == 1 {
            released(spec, "ipFamily");
        }
    } else if !before.is_empty() && before[0] != now[0] {
        changed(ips.value());
    }
}
