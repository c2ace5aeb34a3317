//! Where a request to a kubelet, pod or service goes on to.

use std::net::{IpAddr, SocketAddr};

use api::Status;
use auth::encode_path;
use serde_json::Value;
use validation::items;

use crate::dialer::is_proxyable;
use crate::dialer::reach::{self, Reachable};
use resources::call::Call;

/// Where kubelets serve that do not say so.
const KUBELET_PORT: u16 = 10250;
/// Addresses of a node, the best first: those that need no name server.
const ADDRESS_TYPES: [&str; 5] =
    ["InternalIP", "ExternalIP", "InternalDNS", "ExternalDNS", "Hostname"];

/// How the other side is spoken to, and what it learns of us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Without TLS.
    Plain,
    /// With TLS that checks nothing and shows nothing.
    Tls,
    /// A kubelet, addressed as a node: it sees the API server's certificate.
    Kubelet { verified: bool },
}

/// The place, and what is asked of it.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) address: Reachable,
    /// Address or name that its certificate must be for.
    pub(super) host: String,
    pub(super) way: Way,
    /// Path and query there.
    pub(super) path: String,
}

impl Target {
    pub(super) fn only_path(&self) -> &str {
        self.path.split('?').next().unwrap_or("")
    }

    pub(super) fn authority(&self) -> SocketAddr {
        self.address.address()
    }

    fn at(address: Reachable, tls: bool, path: String) -> Target {
        let way = if tls { Way::Tls } else { Way::Plain };
        Target { address, host: address.address().ip().to_string(), way, path }
    }
}

/// Where the path of `call` leads.
pub(super) async fn of(call: &Call<'_>, query: &str) -> Result<Target, Status> {
    match (call.row.name, call.row.subresource) {
        ("pods", "proxy") => pod_target(call, query),
        ("services", "proxy") => service_target(call, query),
        ("nodes", _) => node_target(call, query).await,
        (_, verb) => kubelet_target(call, verb, query).await,
    }
}

/// The pod, its node's kubelet, and the path there.
async fn kubelet_target(call: &Call<'_>, verb: &str, query: &str) -> Result<Target, Status> {
    let pod = call.read(("", "v1", "pods"), &call.key()).ok_or_else(|| call.not_found())?;
    let node = pod["spec"]["nodeName"].as_str().unwrap_or("");
    if node.is_empty() {
        return Err(Status::bad_request(format!(
            "pod {} does not have a host assigned",
            call.context.info.name
        )));
    }
    let (namespace, name) = (&call.context.info.namespace, &call.context.info.name);
    let path = if verb == "portforward" {
        format!("/portForward/{namespace}/{name}")
    } else {
        let container = container_of(call, &pod, verb)?;
        let verb = if verb == "log" { "containerLogs" } else { verb };
        format!("/{verb}/{namespace}/{name}/{container}")
    };
    let verified = !(verb == "log" && call.context.query.flag("insecureSkipTLSVerifyBackend"));
    let place = Kubelet::of(call, node)?;
    let path = format!("{path}?{}", kubelet_query(verb, query));
    place.target(Way::Kubelet { verified }, place.port, path).await
}

/// The kubelet names exec's options otherwise (`input` for `stdin`), as upstream's client does.
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
    if strategy::query::is_true(value) { "1" } else { "0" }
}

/// The container asked for, the annotated default, or the only one.
fn container_of(call: &Call<'_>, pod: &Value, verb: &str) -> Result<String, Status> {
    let spec = &pod["spec"];
    let all: Vec<&str> = ["containers", "initContainers", "ephemeralContainers"]
        .iter()
        .flat_map(|kind| items(spec, kind))
        .filter_map(|c| c["name"].as_str())
        .collect();
    let asked = call.context.query.get("container").filter(|c| !c.is_empty());
    let pod_name = &call.context.info.name;
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

/// Where a node says that its kubelet is.
struct Kubelet {
    host: String,
    port: u16,
}

impl Kubelet {
    fn of(call: &Call<'_>, node: &str) -> Result<Kubelet, Status> {
        let object = call
            .read(("", "v1", "nodes"), node)
            .ok_or_else(|| Status::not_found("", "nodes", node))?;
        Kubelet::read(&object)
    }

    fn read(node: &Value) -> Result<Kubelet, Status> {
        let status = &node["status"];
        let of_type = |kind: &&str| items(status, "addresses").find(|a| a["type"] == **kind);
        let host = ADDRESS_TYPES.iter().find_map(of_type).and_then(|a| a["address"].as_str());
        let host = host.ok_or_else(|| Status::internal(no_address(status)))?.to_owned();
        let port = status["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64();
        let port = port.filter(|port| *port > 0).unwrap_or(u64::from(KUBELET_PORT));
        let port = u16::try_from(port);
        let port = port.map_err(|_| Status::bad_request("invalid port of the kubelet"))?;
        Ok(Kubelet { host, port })
    }

    async fn target(&self, way: Way, port: u16, path: String) -> Result<Target, Status> {
        let address = reach::resolve(&self.host, port).await?;
        Ok(Target { address, host: self.host.clone(), way, path })
    }
}

fn no_address(status: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
    let shown = |a: &Value| format!("{{{} {}}}", text(&a["type"]), text(&a["address"]));
    let known: Vec<String> = items(status, "addresses").map(shown).collect();
    format!("no preferred addresses found; known addresses: [{}]", known.join(" "))
}

/// The kubelet of a Node, which is verified.
pub(super) async fn of_kubelet(node: &Value, path: &str) -> Result<Target, Status> {
    let place = Kubelet::read(node)?;
    place.target(Way::Kubelet { verified: true }, place.port, path.to_owned()).await
}

/// `[scheme:]name[:port]` of a proxied object.
struct Named<'a> {
    tls: bool,
    name: &'a str,
    port: &'a str,
}

impl<'a> Named<'a> {
    fn parse(kind: &str, text: &'a str) -> Result<Named<'a>, Status> {
        let named = match text.split(':').collect::<Vec<_>>().as_slice() {
            [name] => Some(("", *name, "")),
            [name, port] => Some(("", *name, *port)),
            [scheme, name, port] => Some((*scheme, *name, *port)),
            _ => None,
        };
        let known = |scheme: &str| ["", "http", "https"].contains(&scheme);
        let named = named.filter(|(scheme, name, _)| known(scheme) && !name.is_empty());
        let invalid = || Status::bad_request(format!("invalid {kind} request {text:?}"));
        let (scheme, name, port) = named.ok_or_else(invalid)?;
        Ok(Named { tls: scheme == "https", name, port })
    }

    /// The port that is named, or the scheme's.
    fn number(&self) -> Result<u16, Status> {
        match self.port {
            "" if self.tls => Ok(443),
            "" => Ok(80),
            text => text.parse().map_err(|_| Status::bad_request(format!("invalid port {text:?}"))),
        }
    }
}

fn rest_path(call: &Call<'_>, query: &str) -> String {
    let query = if query.is_empty() { String::new() } else { format!("?{query}") };
    let rest = &call.context.info.rest;
    let end = if !rest.is_empty() && call.context.info.path.ends_with('/') { "/" } else { "" };
    format!("/{}{end}{query}", encode_path(rest))
}

/// The kubelet, or another port of its node, which is nobody we show a certificate to.
async fn node_target(call: &Call<'_>, query: &str) -> Result<Target, Status> {
    let named = Named::parse("node", &call.context.info.name)?;
    let place = Kubelet::of(call, named.name)?;
    let (way, port) = match named.port {
        "" => (Way::Kubelet { verified: true }, place.port),
        text if text == place.port.to_string() => (Way::Kubelet { verified: true }, place.port),
        _ if named.tls => (Way::Tls, named.number()?),
        _ => (Way::Plain, named.number()?),
    };
    place.target(way, port, rest_path(call, query)).await
}

fn pod_target(call: &Call<'_>, query: &str) -> Result<Target, Status> {
    let named = Named::parse("pod", &call.context.info.name)?;
    let key = call.row.key(&call.context.info.namespace, named.name);
    let pod = call.read(("", "v1", "pods"), &key);
    let pod = pod.ok_or_else(|| Status::not_found("", "pods", named.name))?;
    let first = items(&pod["spec"], "containers").flat_map(|c| items(c, "ports")).next();
    let first = first.and_then(|p| u16::try_from(p["containerPort"].as_u64()?).ok());
    let port = match first.filter(|_| named.port.is_empty()) {
        Some(port) => port,
        None => named.number()?,
    };
    let ip = pod["status"]["podIP"].as_str().and_then(|ip| ip.parse::<IpAddr>().ok());
    let ip = ip.ok_or_else(|| Status::bad_request("address not allowed"))?;
    Ok(Target::at(Reachable::of(ip, port)?, named.tls, rest_path(call, query)))
}

/// Any ready endpoint of the service's port that is a pod's.
fn service_target(call: &Call<'_>, query: &str) -> Result<Target, Status> {
    let named = Named::parse("service", &call.context.info.name)?;
    let name = named.name;
    let key = call.row.key(&call.context.info.namespace, name);
    let service = call.read(("", "v1", "services"), &key);
    let service = service.ok_or_else(|| Status::not_found("", "services", name))?;
    let port = port_name(&service, &named)?;
    let slices = call.resources.collection_of("discovery.k8s.io", "v1", "endpointslices");
    let page =
        slices.list(&format!("{}/", call.context.info.namespace), None, 0, usize::MAX, &|o| {
            o.meta().label("kubernetes.io/service-name") == Some(name)
        });
    let slices = page.map(|p| p.objects).unwrap_or_default();
    let trees: Vec<Value> = slices.iter().map(|slice| slice.to_value()).collect();
    let mut found: Vec<(&Value, u16)> =
        trees.iter().flat_map(|slice| ready(slice, &port)).collect();
    let address = loop {
        if found.is_empty() {
            let told = format!("no endpoints available for service {:?}", call.context.info.name);
            return Err(Status::unavailable(told));
        }
        let pick = usize::from(uuid::Uuid::new_v4().as_bytes()[0]) % found.len();
        let (endpoint, port) = found.swap_remove(pick);
        if let Some(ip) = pod_address(call, endpoint) {
            break Reachable::of(ip, port)?;
        }
    };
    Ok(Target::at(address, named.tls, rest_path(call, query)))
}

/// The name of the port asked for by name or number.
fn port_name(service: &Value, named: &Named<'_>) -> Result<String, Status> {
    let Ok(number) = named.port.parse::<i64>() else { return Ok(named.port.to_owned()) };
    let port = items(&service["spec"], "ports").find(|p| p["port"] == number);
    let port = port.ok_or_else(|| {
        let told = format!("no service port {number} found for service {:?}", named.name);
        Status::unavailable(told)
    })?;
    Ok(port["name"].as_str().unwrap_or("").to_owned())
}

/// The slice's ready endpoints with the number of the named port.
fn ready<'a>(slice: &'a Value, port: &str) -> Vec<(&'a Value, u16)> {
    let port = items(slice, "ports").find(|p| p["name"].as_str().unwrap_or("") == port);
    let number = port.and_then(|p| u16::try_from(p["port"].as_u64()?).ok());
    let Some(number) = number else { return Vec::new() };
    let ready = items(slice, "endpoints").filter(|e| e["conditions"]["ready"] != false);
    ready.map(|endpoint| (endpoint, number)).collect()
}

/// The endpoint's address, when it is really that of the pod it names in the service's namespace:
/// whoever writes endpoints must not reach more than who may proxy to pods.
fn pod_address(call: &Call<'_>, endpoint: &Value) -> Option<IpAddr> {
    let target = &endpoint["targetRef"];
    let namespace = call.context.info.namespace.as_str();
    let (home, name) = (target["namespace"].as_str()?, target["name"].as_str()?);
    let pod = call.read(("", "v1", "pods"), &format!("{namespace}/{name}"));
    let pod = pod.filter(|_| home == namespace)?;
    let own = |ip: &&str| items(&pod["status"], "podIPs").any(|own| own["ip"] == **ip);
    let mut addresses = items(endpoint, "addresses").filter_map(Value::as_str).filter(own);
    addresses.find_map(|ip| ip.parse().ok().filter(|ip| is_proxyable(*ip)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_have_a_scheme_and_a_port() {
        let parse = |text| Named::parse("pod", text).map(|n| (n.tls, n.name, n.port));
        assert_eq!(parse("p").ok(), Some((false, "p", "")));
        assert_eq!(parse("p:80").ok(), Some((false, "p", "80")));
        assert_eq!(parse("https:p:").ok(), Some((true, "p", "")));
        assert_eq!(parse(":p:x").ok(), Some((false, "p", "x")));
        for invalid in ["", "ftp:p:80", "http::80", "a:b:c:d"] {
            let told = parse(invalid).expect_err("invalid").message;
            assert_eq!(told, format!("invalid pod request {invalid:?}"));
        }
    }
}
