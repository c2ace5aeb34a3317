//! API objects as the API server would send them.

use std::net::IpAddr;

use proxy::Change;
use serde_json::{Value, json};

/// A service in namespace `d` with one port 80 -> 8080; `spec` adds to or overrides its spec.
pub(crate) fn service(name: &str, ip: &str, protocol: &str, spec: Value, status: Value) -> Change {
    let mut object = json!({
        "metadata": {"namespace": "d", "name": name},
        "spec": {
            "type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip],
            "ports": [{"name": "p", "port": 80, "protocol": protocol, "targetPort": 8080}],
        },
        "status": status,
    });
    for (key, value) in spec.as_object().unwrap() {
        object["spec"][key] = value.clone();
    }
    Change::Service(Box::new(serde_json::from_value(object).unwrap()))
}

/// The service's endpoints, as (address, node).
pub(crate) fn slice(name: &str, protocol: &str, endpoints: &[(IpAddr, &str)]) -> Change {
    let endpoints: Vec<_> = endpoints
        .iter()
        .map(|(ip, node)| {
            json!({"addresses": [ip], "nodeName": node,
                   "conditions": {"ready": true, "serving": true, "terminating": false}})
        })
        .collect();
    let object = json!({
        "metadata": {
            "namespace": "d", "name": format!("{name}-1"),
            "labels": {"kubernetes.io/service-name": name},
        },
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [{"name": "p", "port": 8080, "protocol": protocol}],
    });
    Change::EndpointSlice(Box::new(serde_json::from_value(object).unwrap()))
}
