//! The way to kubelets, pods and services: logs, exec, attach, port-forward, and `/proxy`.
//!
//! Upgraded connections are piped byte for byte: the kubelet speaks SPDY and WebSocket itself.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use api::Status;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, Uri, header};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::call::Call;
use crate::respond::{self, Body};
use kinds::items;

/// Opens connections into the node network, which may be another network namespace.
pub trait NodeDialer: Send + Sync + 'static {
    fn dial(
        &self,
        to: SocketAddr,
    ) -> Pin<Box<dyn Future<Output = std::io::Result<TcpStream>> + Send>>;

    /// TLS towards kubelets: the client certificate and the CA that signed theirs.
    fn kubelet_tls(&self) -> Arc<rustls::ClientConfig>;
}

/// Where a request goes on to.
struct Target {
    address: SocketAddr,
    tls: bool,
    /// Path and query there.
    path: String,
}

/// True for the subresources that are answered elsewhere.
pub(crate) fn is_proxied(resource: &str, subresource: &str) -> bool {
    matches!(
        (resource, subresource),
        ("pods", "log" | "exec" | "attach" | "portforward" | "proxy")
            | ("nodes" | "services", "proxy")
    )
}

/// Sends the request on; the answer streams.
pub(crate) async fn handle<B>(
    call: &Call<'_>,
    mut request: Request<B>,
) -> Result<Response<Body>, Status>
where
    B: hyper::body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    let query = request.uri().query().unwrap_or("").to_owned();
    let target = match (call.row.name, call.row.subresource) {
        ("pods", "proxy") => pod_target(call, &query)?,
        ("services", "proxy") => service_target(call, &query)?,
        ("nodes", _) => node_target(call, &query)?,
        (_, verb) => kubelet_target(call, verb, &query)?,
    };
    let upgrade = request.headers().contains_key(header::UPGRADE);
    let client_side = upgrade.then(|| hyper::upgrade::on(&mut request));
    let outgoing = outgoing(request, &target)?;
    let mut response = send(call, &target, outgoing).await?;
    if response.status() == http::StatusCode::SWITCHING_PROTOCOLS
        && let Some(client_side) = client_side
    {
        let node_side = hyper::upgrade::on(&mut response);
        tokio::spawn(pipe(client_side, node_side));
    }
    let (mut parts, body) = response.into_parts();
    parts.headers.remove(header::TRANSFER_ENCODING);
    let frames = body.map_err(|e| tracing::debug!(error = %e, "proxied answer ended early"));
    Ok(Response::from_parts(parts, respond::stream(Quiet(frames))))
}

/// Turns a broken proxied body into its end: the head was sent already.
struct Quiet<B>(B);

impl<B: hyper::body::Body<Data = Bytes> + Unpin> hyper::body::Body for Quiet<B> {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.0).poll_frame(cx).map(|frame| frame.and_then(|f| f.ok()).map(Ok))
    }
}

/// Ends when either side does.
async fn pipe(client: hyper::upgrade::OnUpgrade, node: hyper::upgrade::OnUpgrade) {
    let (Ok(client), Ok(node)) = tokio::join!(client, node) else { return };
    let (mut client, mut node) = (TokioIo::new(client), TokioIo::new(node));
    if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut node).await {
        tracing::debug!(%error, "proxied connection ended");
    }
}

fn outgoing<B>(request: Request<B>, target: &Target) -> Result<Request<B>, Status> {
    let (mut parts, body) = request.into_parts();
    parts.uri = target.path.parse::<Uri>().map_err(|e| Status::bad_request(e.to_string()))?;
    parts.version = http::Version::HTTP_11;
    scrub(&mut parts.headers, target);
    Ok(Request::from_parts(parts, body))
}

/// Credentials stay here.
fn scrub(headers: &mut HeaderMap, target: &Target) {
    headers.remove(header::AUTHORIZATION);
    headers.remove(header::TRANSFER_ENCODING);
    if let Ok(host) = target.address.to_string().parse() {
        headers.insert(header::HOST, host);
    }
}

async fn send<B>(
    call: &Call<'_>,
    target: &Target,
    request: Request<B>,
) -> Result<Response<hyper::body::Incoming>, Status>
where
    B: hyper::body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    let dialer = &call.server.config.node_dialer;
    let failed = |e: &dyn std::fmt::Display| {
        let m = format!("error dialing backend: dial tcp {}: {e}", target.address);
        Status::internal(m)
    };
    let tcp = dialer.dial(target.address).await.map_err(|e| failed(&e))?;
    let io: Box<dyn Io> = if target.tls {
        let connector = tokio_rustls::TlsConnector::from(dialer.kubelet_tls());
        let name = rustls::pki_types::ServerName::from(target.address.ip());
        Box::new(connector.connect(name, tcp).await.map_err(|e| failed(&e))?)
    } else {
        Box::new(tcp)
    };
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(io)).await.map_err(|e| failed(&e))?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "connection to the node ended");
        }
    });
    sender.send_request(request).await.map_err(|e| failed(&e))
}

trait Io: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Io for T {}

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
    if matches!(value, "true" | "1") { "1" } else { "0" }
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
    format!("/{}{query}", call.info.rest)
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
