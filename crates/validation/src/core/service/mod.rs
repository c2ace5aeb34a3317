//! Services: ports, addresses, families, and what depends on their type.

use std::collections::HashSet;

mod addresses;
mod defaults;

use api::names;
use serde_json::{Value, json};

use crate::check::At;
use crate::formats;
use crate::shared::{endpoint_ip, legacy_cidr, legacy_ip, port_number, port_or_name, texts};
use crate::{Kind, PLAIN};

pub(crate) static KIND: Kind = Kind {
    name: names::dns_label,
    default: defaults::default,
    create: service,
    update: |object| {
        addresses::changes(object);
        service(object);
    },
    status,
    ..PLAIN
};

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

/// The first cluster IP is `None`, and there is no other.
pub(super) fn is_headless(spec: &Value) -> bool {
    spec["clusterIPs"].as_array().is_some_and(|ips| ips.len() == 1 && ips[0] == "None")
}

fn service(object: &At<'_>) {
    let spec = object.get("spec");
    let kind = spec.get("type");
    let headless = is_headless(spec.value());
    topology(object);
    let ports = spec.get("ports");
    if ports.is_empty() && !headless && kind.text() != "ExternalName" {
        ports.required("");
    }
    by_type(&spec, kind.text(), headless);
    service_ports(&ports);
    spec.get("selector").labels();
    affinity(&spec);
    addresses::related(&spec);
    external_ips(&spec.get("externalIPs"));
    kind.need_one_of(&["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]);
    node_ports(&ports, kind.text());
    balancer(object, &spec);
    traffic(&spec);
}

fn topology(object: &At<'_>) {
    const HINTS: &str = "service.kubernetes.io/topology-aware-hints";
    const MODE: &str = "service.kubernetes.io/topology-mode";
    let meta = object.get("metadata");
    let annotations = meta.get("annotations");
    let (hints, mode) = (annotations.key(HINTS), annotations.key(MODE));
    if !hints.is_absent() && !mode.is_absent() && hints.text() != mode.text() {
        mode.invalid(&format!("must match annotations[{HINTS}] when both are specified"));
    }
}

fn by_type(spec: &At<'_>, kind: &str, headless: bool) {
    match kind {
        "LoadBalancer" | "NodePort" if headless => {
            let ips = spec.get("clusterIPs");
            ips.index(0).invalid(&format!("may not be set to 'None' for {kind} services"));
        }
        "ExternalName" => {
            const WHY: &str = "may not be set for ExternalName services";
            for field in ["clusterIPs", "ipFamilies"] {
                if !spec.get(field).is_empty() {
                    spec.get(field).forbidden(WHY);
                }
            }
            if !spec.get("ipFamilyPolicy").is_absent() {
                spec.get("ipFamilyPolicy").forbidden(WHY);
            }
            let name = spec.get("externalName");
            let bare = name.text().strip_suffix('.').unwrap_or(name.text());
            if bare.is_empty() {
                name.required("");
            }
            for fault in names::dns_subdomain(bare).iter().filter(|_| !bare.is_empty()) {
                name.invalid_as(&bare.into(), fault);
            }
        }
        _ => {}
    }
}

fn service_ports(list: &At<'_>) {
    let mut seen: HashSet<String> = HashSet::new();
    for port in list.items() {
        let name = port.get("name");
        if name.is_empty() {
            if list.len() > 1 {
                name.required("");
            }
        } else {
            name.named(names::dns_label);
            if seen.iter().any(|n| n == name.text()) {
                name.duplicate();
            }
            seen.insert(name.text().to_owned());
        }
        port_number(&port.get("port"));
        port.get("protocol").need_one_of(&PROTOCOLS);
        port_or_name(&port.get("targetPort"));
        let app = port.get("appProtocol");
        if !app.is_absent() {
            app.named(names::qualified_name);
        }
    }
}

fn affinity(spec: &At<'_>) {
    let (affinity, config) = (spec.get("sessionAffinity"), spec.get("sessionAffinityConfig"));
    affinity.need_one_of(&["ClientIP", "None"]);
    match affinity.text() {
        "ClientIP" => {
            const WHEN: &str = "when session affinity type is ClientIP";
            let client = config.get("clientIP");
            let timeout = client.get("timeoutSeconds");
            if config.is_absent() {
                config.required(WHEN);
            } else if client.is_absent() {
                client.required(WHEN);
            } else if timeout.is_absent() {
                timeout.required(WHEN);
            } else if !(1..=86_400).contains(&timeout.number()) {
                timeout.invalid("must be greater than 0 and less than 86400");
            }
        }
        "None" if !config.is_absent() => {
            config.forbidden("must not be set when session affinity is None");
        }
        _ => {}
    }
}

fn external_ips(list: &At<'_>) {
    let before = texts(list.old(), None);
    for ip in list.items() {
        if ip.sound(|| legacy_ip(&ip, &before)) {
            endpoint_ip(&ip);
        }
    }
}

fn node_ports(ports: &At<'_>, kind: &str) {
    if kind == "ClusterIP" {
        for port in ports.items().filter(|p| p.get("nodePort").number() != 0) {
            port.get("nodePort").forbidden("may not be used when `type` is 'ClusterIP'");
        }
    }
    let key = |port: &At<'_>, field: &str| {
        (port.get("protocol").text().to_owned(), port.get(field).number())
    };
    let mut taken: Vec<(String, i64)> = Vec::new();
    for port in ports.items().filter(|p| p.get("nodePort").number() != 0) {
        let own = key(&port, "nodePort");
        if taken.contains(&own) {
            port.get("nodePort").duplicate();
        }
        taken.push(own);
    }
    taken.clear();
    for port in ports.items() {
        let own = key(&port, "port");
        if taken.contains(&own) {
            let shown = json!({"protocol": own.0, "port": own.1});
            port.with(&shown).duplicate_struct("core.ServicePort", "");
        }
        taken.push(own);
    }
}

fn balancer(object: &At<'_>, spec: &At<'_>) {
    const ONLY: &str = "may only be used when `type` is 'LoadBalancer'";
    const RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
    let balanced = spec.get("type").text() == "LoadBalancer";
    let ranges = spec.get_as("loadBalancerSourceRanges", "LoadBalancerSourceRanges");
    let meta = object.get("metadata");
    let annotations = meta.get("annotations");
    let annotation = annotations.key(RANGES);
    if !ranges.is_empty() {
        if !balanced {
            ranges.forbidden(ONLY);
        }
        let before: Vec<&str> = texts(ranges.old(), None).into_iter().map(str::trim).collect();
        for range in ranges.items() {
            let trimmed = range.text().trim().into();
            legacy_cidr(&range.with(&trimmed), &before);
        }
    } else if !annotation.is_absent() {
        if !balanced {
            annotation.forbidden(ONLY);
        }
        if !annotation.unchanged() && !annotation.text().trim().is_empty() {
            for range in annotation.text().trim().split(',') {
                for fault in formats::cidr(range.trim()) {
                    annotation.invalid_as(&range.trim().into(), &fault);
                }
            }
        }
    }
    let allocate = spec.get("allocateLoadBalancerNodePorts");
    if !allocate.is_absent() && !balanced {
        allocate.forbidden(ONLY);
    }
    if balanced && allocate.is_absent() {
        spec.report_at("allocateLoadBalancerNodePorts", "FieldValueRequired", "Required value");
    }
    let class = spec.get("loadBalancerClass");
    if !class.is_absent() {
        if balanced {
            class.named(names::qualified_name);
        } else {
            class.forbidden(ONLY);
        }
    }
}

/// Clients outside the cluster can reach it.
pub(super) fn is_external(spec: &Value) -> bool {
    let kind = spec["type"].as_str().unwrap_or("");
    let ips = spec["externalIPs"].as_array().is_some_and(|l| !l.is_empty());
    matches!(kind, "NodePort" | "LoadBalancer") || (kind == "ClusterIP" && ips)
}

pub(super) fn needs_health_check(spec: &Value) -> bool {
    spec["type"] == "LoadBalancer" && spec["externalTrafficPolicy"] == "Local"
}

fn traffic(spec: &At<'_>) {
    let external = spec.get("externalTrafficPolicy");
    if is_external(spec.value()) {
        external.need_one_of(&["Cluster", "Local"]);
    } else if !external.is_empty() {
        external.invalid("may only be set for externally-accessible services");
    }
    let health = spec.get("healthCheckNodePort");
    if !needs_health_check(spec.value()) {
        if health.number() != 0 {
            health.invalid("may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'");
        }
    } else if health.need() {
        port_number(&health);
    }
    let internal = spec.get("internalTrafficPolicy");
    let kind = spec.get("type");
    if internal.is_absent() && matches!(kind.text(), "NodePort" | "LoadBalancer" | "ClusterIP") {
        internal.required("");
    }
    internal.one_of_if_set(&["Cluster", "Local"]);
    spec.get("trafficDistribution").one_of_if_set(&[
        "PreferClose",
        "PreferSameZone",
        "PreferSameNode",
    ]);
}

fn status(object: &At<'_>) {
    let (spec, status) = (object.get("spec"), object.get("status"));
    load_balancer(&status.get("loadBalancer"), spec.get("type").text() == "LoadBalancer");
}

/// Addresses that a load balancer reports.
fn load_balancer(status: &At<'_>, allowed: bool) {
    let list = status.get("ingress");
    if !list.is_empty() && !allowed {
        return list.forbidden("may only be used when `spec.type` is 'LoadBalancer'");
    }
    let before = texts(list.old(), Some("ip"));
    for ingress in list.items() {
        let (ip, mode) = (ingress.get("ip"), ingress.get("ipMode"));
        if !ip.is_empty() {
            legacy_ip(&ip, &before);
        }
        match (mode.is_absent(), ip.is_empty()) {
            (true, false) => mode.required("must be specified when `ip` is set"),
            (false, true) => mode.forbidden("may not be specified when `ip` is not set"),
            (false, false) => drop(mode.one_of(&["Proxy", "VIP"])),
            (true, true) => {}
        }
        host_name(&ingress.get("hostname"));
    }
}

/// A balancer's name is a DNS name, not an address.
pub(crate) fn host_name(name: &At<'_>) {
    if name.is_empty() {
        return;
    }
    name.named(names::dns_subdomain);
    if formats::sloppy_ip(name.text()).is_some() {
        name.invalid("must be a DNS name, not an IP address");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::check::Check;

    fn faults(spec: Value) -> Vec<String> {
        let object = json!({"spec": spec});
        let check = Check::default();
        super::service(&check.root(&object, None));
        check.into_causes().iter().map(|c| format!("{}: {}", c.field, c.message)).collect()
    }

    #[test]
    fn one_port_twice_is_told_at_the_second() {
        let port = json!({"port": 80, "protocol": "TCP", "targetPort": 80});
        let (mut a, mut b) = (port.clone(), port);
        (a["name"], b["name"]) = ("a".into(), "b".into());
        let found = faults(json!({
            "type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
            "ports": [a, b],
        }));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0]
                .starts_with("spec.ports[1]: Duplicate value: {\"Name\":\"\",\"Protocol\":\"TCP\"")
        );
    }

    #[test]
    fn a_load_balancer_is_not_headless() {
        let found = faults(json!({
            "type": "LoadBalancer", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
            "externalTrafficPolicy": "Cluster", "allocateLoadBalancerNodePorts": true,
            "clusterIP": "None", "clusterIPs": ["None"],
        }));
        assert_eq!(
            found,
            [
                "spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for LoadBalancer services"
            ]
        );
    }
}
