//! Where a request to a kubelet, pod or service goes on to.

use std::net::SocketAddr;

use api::Status;
use kinds::items;
use serde_json::Value;

use crate::call::Call;

/// The place, and what is asked of it.
pub(super) struct Target {
    pub(super) address: SocketAddr,
    pub(super) tls: bool,
    /// Path and query there.
    pub(super) path: String,
}

impl Target {
    pub(super) fn only_path(&self) -> &str {
        self.path.split('?').next().unwrap_or("")
    }
}

/// Where the path of `call` leads.
pub(super) fn of(call: &Call<'_>, query: &str) -> Result<Target, Status> {
    match (call.row.name, call.row.subresource) {
        ("pods", "proxy") => pod_target(call, query),
        ("services", "proxy") => service_target(call, query),
        ("nodes", _) => node_target(call, query),
        (_, verb) => kubelet_target(call, verb, query),
    }
}

/// The pod, its node's kubelet, and the path there.
fn kubelet_target(call: &Call<'_>, verb: &str, query: &str) -> Result<Target, Status> {
    let pod = call.read(("", "v1", "pods"), &call.key()).ok_or_else(|| call.not_found())?;
    let node = pod["spec"]["nodeName"].as_str().unwrap_or("");
    if node.is_empty() {
        return Err(Status::bad_request(format!(
            "pod {} does not have a host assigned",
            call.info.name
        )));
    }
    let (namespace, name) = (&call.info.namespace, &call.info.name);
    let path = if verb == "portforward" {
        format!("/portForward/{namespace}/{name}")
    } else {
        let container = container_of(call, &pod, verb)?;
        let verb = if verb == "log" { "containerLogs" } else { verb };
        format!("/{verb}/{namespace}/{name}/{container}")
    };
    let address = kubelet_address(call, node)?;
    Ok(Target { address, tls: true, path: format!("{path}?{}", kubelet_query(verb, query)) })
}

/// The kubelet names exec's options otherwise (`input` for `stdin`), as the original's client does.
fn kubelet_query(verb: &str, query: &str) -> String {
    if !matches!(verb, "exec" | "attach") {
        return query.to_owned();
    }
    let rename = |pair: &str| match pair.split_once('=') {
        Some(("stdin", v)) => format!("input={}", truth(v)),
        Some(("stdout", v)) => format!("output={}", truth(v)),
        Some(("stderr", v)) => format!("error={}", truth(v)),
        Some(("tty", v)) => format!("tty={}", truth(v)),
        _ => pair.to_owned(),
    };
    query.split('&').filter(|p| !p.is_empty()).map(rename).collect::<Vec<_>>().join("&")
}

fn truth(value: &str) -> &'static str {
    if crate::query::is_true(value) { "1" } else { "0" }
}

/// The container asked for, the annotated default, or the only one.
fn container_of(call: &Call<'_>, pod: &Value, verb: &str) -> Result<String, Status> {
    let spec = &pod["spec"];
    let all: Vec<&str> = ["containers", "initContainers", "ephemeralContainers"]
        .iter()
        .flat_map(|kind| items(spec, kind))
        .filter_map(|c| c["name"].as_str())
        .collect();
    let asked = call.query.get("container").filter(|c| !c.is_empty());
    let pod_name = &call.info.name;
    if let Some(asked) = asked {
        if all.contains(&asked) {
            return Ok(asked.to_owned());
        }
        return Err(Status::bad_request(format!(
            "container {asked} is not valid for pod {pod_name}"
        )));
    }
    let regular: Vec<&str> = items(spec, "containers").filter_map(|c| c["name"].as_str()).collect();
    match regular.as_slice() {
        [only] => Ok((*only).to_owned()),
        _ if verb != "log" => Ok(regular.first().copied().unwrap_or("").to_owned()),
        _ => Err(Status::bad_request(format!(
            "a container name must be specified for pod {pod_name}, choose one of: [{}]",
            regular.join(" ")
        ))),
    }
}

fn kubelet_address(call: &Call<'_>, node: &str) -> Result<SocketAddr, Status> {
    let object =
        call.read(("", "v1", "nodes"), node).ok_or_else(|| Status::not_found("", "nodes", node))?;
    let port =
        object["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64().unwrap_or(10250);
    let addresses = || items(&object["status"], "addresses");
    let internal = addresses().find(|a| a["type"] == "InternalIP").or_else(|| addresses().next());
    let ip = internal.and_then(|a| a["address"].as_str()?.parse().ok());
    let ip = ip.ok_or_else(|| Status::internal(format!("node {node:?} has no address")))?;
    Ok(SocketAddr::new(ip, port as u16))
}

/// `[scheme:]name[:port]` of a proxied object.
fn split_name(text: &str) -> (bool, &str, &str) {
    match text.split(':').collect::<Vec<_>>().as_slice() {
        [scheme, name, port] => (*scheme == "https", name, port),
        [name, port] => (false, name, port),
        _ => (false, text, ""),
    }
}

fn rest_path(call: &Call<'_>, query: &str) -> String {
    let query = if query.is_empty() { String::new() } else { format!("?{query}") };
    let rest = &call.info.rest;
    let end = if !rest.is_empty() && call.info.path.ends_with('/') { "/" } else { "" };
    format!("/{rest}{end}{query}")
}

fn node_target(call: &Call<'_>, query: &str) -> Result<Target, Status> {
    let (_, name, _) = split_name(&call.info.name);
    let address = kubelet_address(call, name)?;
    Ok(Target { address, tls: true, path: rest_path(call, query) })
}

fn pod_target(call: &Call<'_>, query: &str) -> Result<Target, Status> {
    let (tls, name, port) = split_name(&call.info.name);
    let key = call.row.key(&call.info.namespace, name);
    let pod =
        call.read(("", "v1", "pods"), &key).ok_or_else(|| Status::not_found("", "pods", name))?;
    let first = items(&pod["spec"], "containers").flat_map(|c| items(c, "ports")).next();
    let port = match port {
        "" => first.and_then(|p| p["containerPort"].as_u64()).unwrap_or(80) as u16,
        text => text.parse().map_err(|_| Status::bad_request(format!("invalid port {text:?}")))?,
    };
    let ip = pod["status"]["podIP"].as_str().and_then(|ip| ip.parse().ok());
    let ip = ip.ok_or_else(|| Status::unavailable("address not allowed"))?;
    Ok(Target { address: SocketAddr::new(ip, port), tls, path: rest_path(call, query) })
}

/// Any ready endpoint of the service's port.
fn service_target(call: &Call<'_>, query: &str) -> Result<Target, Status> {
    let (tls, name, port) = split_name(&call.info.name);
    let key = call.row.key(&call.info.namespace, name);
    let service = call
        .read(("", "v1", "services"), &key)
        .ok_or_else(|| Status::not_found("", "services", name))?;
    let matches = |p: &&Value| {
        port.is_empty()
            || p["name"] == port
            || p["port"].as_u64().is_some_and(|n| n.to_string() == port)
    };
    let chosen = items(&service["spec"], "ports").find(matches);
    let none =
        || Status::unavailable(format!("no endpoints available for service {:?}", call.info.name));
    let port_name = chosen.ok_or_else(none)?["name"].as_str().unwrap_or("").to_owned();
    let slices = call.server.collection_of("discovery.k8s.io", "v1", "endpointslices");
    let prefix = format!("{}/", call.info.namespace);
    let page = slices.list(&prefix, None, 0, usize::MAX, &|o| {
        o.meta().label("kubernetes.io/service-name") == Some(name)
    });
    let mut found = Vec::new();
    for slice in page.map(|p| p.objects).unwrap_or_default() {
        let tree = slice.to_value();
        let port = items(&tree, "ports").find(|p| p["name"].as_str().unwrap_or("") == port_name);
        let Some(port) = port.and_then(|p| p["port"].as_u64()) else { continue };
        let ready = items(&tree, "endpoints").filter(|e| e["conditions"]["ready"] != false);
        let ips =
            ready.flat_map(|e| items(e, "addresses")).filter_map(|a| a.as_str()?.parse().ok());
        found.extend(ips.map(|ip| SocketAddr::new(ip, port as u16)));
    }
    let pick = usize::from(uuid::Uuid::new_v4().as_bytes()[0]);
    let address = found.get(pick % found.len().max(1)).copied().ok_or_else(none)?;
    Ok(Target { address, tls, path: rest_path(call, query) })
}
