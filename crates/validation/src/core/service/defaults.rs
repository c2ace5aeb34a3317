//! Defaults of services that depend on their type.

use serde_json::{Value, json};

use super::is_external;
use crate::value::{items_mut, set_default};

pub(super) fn default(object: &mut Value) {
    let spec = &mut object["spec"];
    for port in items_mut(spec, "ports") {
        set_default(port, "protocol", "TCP");
        let unset = matches!(&port["targetPort"], Value::Null)
            || port["targetPort"] == ""
            || port["targetPort"] == 0;
        if unset {
            port["targetPort"] = port["port"].clone();
        }
    }
    let kind = spec["type"].as_str().unwrap_or("").to_owned();
    if is_external(spec) {
        set_default(spec, "externalTrafficPolicy", "Cluster");
    }
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer" | "ClusterIP") {
        set_default(spec, "internalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        set_default(spec, "allocateLoadBalancerNodePorts", true);
        let list = object.pointer_mut("/status/loadBalancer/ingress").and_then(Value::as_array_mut);
        for ingress in list.into_iter().flatten() {
            if ingress["ip"].as_str().is_some_and(|ip| !ip.is_empty()) {
                set_default(ingress, "ipMode", "VIP");
            }
        }
    }
    let spec = &mut object["spec"];
    match spec["sessionAffinity"].as_str() {
        Some("ClientIP")
            if spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"].is_null() =>
        {
            spec["sessionAffinityConfig"] = json!({"clientIP": {"timeoutSeconds": 10800}});
        }
        Some("None") => {
            spec.as_object_mut().map(|s| s.remove("sessionAffinityConfig"));
        }
        _ => {}
    }
}
