//! Services: what depends on their type.

use serde_json::{Value, json};

use crate::check::At;
use crate::value::{items, items_mut, set_default};
use crate::{Kind, PLAIN};

pub(crate) static KIND: Kind =
    Kind { name: api::names::dns_label, default, create: validate, update: validate, ..PLAIN };

fn default(object: &mut Value) {
    let spec = &mut object["spec"];
    for port in items_mut(spec, "ports") {
        let number = port["port"].clone();
        let unset =
            port["targetPort"].is_null() || port["targetPort"] == "" || port["targetPort"] == 0;
        if unset {
            port["targetPort"] = number;
        }
        set_default(port, "protocol", "TCP");
    }
    let kind = spec["type"].as_str().unwrap_or("").to_owned();
    let external = matches!(kind.as_str(), "NodePort" | "LoadBalancer");
    if external || items(spec, "externalIPs").next().is_some() {
        set_default(spec, "externalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        set_default(spec, "allocateLoadBalancerNodePorts", true);
    }
    if spec["sessionAffinity"] == "ClientIP" {
        set_default(spec, "sessionAffinityConfig", json!({"clientIP": {"timeoutSeconds": 10800}}));
    }
    if kind == "ExternalName"
        && let Some(map) = spec.as_object_mut()
    {
        map.remove("internalTrafficPolicy");
    }
}

fn validate(object: &At<'_>) {
    let spec = object.get("spec");
    let kind = spec.get("type");
    kind.one_of(&["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]);
    let headless = spec.get("clusterIP").text() == "None";
    if !headless && kind.text() != "ExternalName" {
        spec.get("ports").need();
    }
    let several = spec.get("ports").len() > 1;
    for port in spec.get("ports").items() {
        port.get("port").between(1, 65535);
        if several {
            port.get("name").need();
        }
    }
    if kind.text() == "ExternalName" {
        spec.get("externalName").need();
    }
    keeps_address(&spec);
}

/// A cluster IP is for life, unless the service becomes or was a mere alias.
fn keeps_address(spec: &At<'_>) {
    let Some(old) = spec.old() else { return };
    if old["type"] == "ExternalName" || spec.get("type").text() == "ExternalName" {
        return;
    }
    let (before, now) = (&old["clusterIP"], &spec.value()["clusterIP"]);
    if before.is_string() && before != "" && before != now {
        let ips = spec.get("clusterIPs");
        for first in ips.items().take(1) {
            first.invalid_as(&json!([now]), "may not change once set");
        }
    }
}
