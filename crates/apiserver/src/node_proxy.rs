//! The way to kubelets, pods and services: logs, exec, attach, port-forward, and `/proxy`.
//!
//! Upgraded connections are piped byte for byte: the kubelet speaks SPDY and WebSocket itself.

mod checked;
pub(crate) mod headers;
mod html;
mod options;
mod target;

use std::future::Future;
use std::pin::Pin;

use api::Status;
use auth::{Attributes, Authorizer, encode_path};
use bytes::Bytes;
use futures::StreamExt;
use http::{Request, Response, Uri, header};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use tokio_util::sync::CancellationToken;

use crate::dialer::{NodeAccess, NodeDialer, tls};
use crate::exchange::RequestBody;
use resources::admit::Admitted;
use resources::call::Call;
use resources::respond::{self, Body};
use target::{Target, Way};

/// True for the subresources that are answered elsewhere.
pub(crate) fn is_proxied(resource: &str, subresource: &str) -> bool {
    matches!(
        (resource, subresource),
        ("pods", "log" | "exec" | "attach" | "portforward" | "proxy")
            | ("nodes" | "services", "proxy")
    )
}

/// Sends the request on; the answer streams.
pub(crate) async fn handle(
    nodes: &NodeAccess,
    call: &Call<'_>,
    request: Request<RequestBody>,
) -> Result<Response<Body>, Status> {
    if !methods(call.row.subresource).contains(&request.method().as_str()) {
        return Err(Status::method_not_allowed());
    }
    let query = request.uri().query().unwrap_or("").to_owned();
    if let Some(redirect) = to_root(call, &request, &query) {
        return Ok(redirect);
    }
    may_create(&nodes.authorizer, call).await?;
    let mut options = options::of(call);
    if !options.is_null() {
        Admitted::connected(&call.context.info.name).admit(call, &mut options).await?;
    }
    let target = target::of(call, &query).await?;
    if is_stream(call) && !streams::is_upgrade(request.headers()) {
        return Err(Status::bad_request("Upgrade request required"));
    }
    match call.row.subresource {
        "proxy" => through(nodes, call, &target, request).await,
        "log" => logs(nodes, call, &target, request).await,
        _ => exchange(nodes, call, &target, request).await,
    }
}

/// How each may be asked (`ConnectMethods`).
fn methods(subresource: &str) -> &'static [&'static str] {
    match subresource {
        "proxy" => &["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"],
        "log" => &["GET", "HEAD"],
        _ => &["GET", "POST"],
    }
}

/// Streams into a pod, which go over an upgraded connection only.
fn is_stream(call: &Call<'_>) -> bool {
    matches!(call.row.subresource, "exec" | "attach" | "portforward")
}

/// WebSockets begin with GET, which is no leave to run something: that is `create`.
async fn may_create(authorizer: &Authorizer, call: &Call<'_>) -> Result<(), Status> {
    if !is_stream(call) || call.context.info.verb == "create" {
        return Ok(());
    }
    let create = Attributes { verb: "create", ..Attributes::of(call.context.info) };
    authorizer.authorize(call.context.user, &create).await.require(call.context.user, &create)
}

/// A proxied root without its slash would make relative links of its pages lead elsewhere.
fn to_root<B>(call: &Call<'_>, request: &Request<B>, query: &str) -> Option<Response<Body>> {
    let path = &call.context.info.path;
    let reads = matches!(*request.method(), http::Method::GET | http::Method::HEAD);
    let bare = call.row.subresource == "proxy" && call.context.info.rest.is_empty();
    if !reads || !bare || path.ends_with('/') || request.headers().contains_key(header::UPGRADE) {
        return None;
    }
    let query = if query.is_empty() { String::new() } else { format!("?{query}") };
    let path = encode_path(path);
    let location = http::HeaderValue::from_str(&format!("{path}/{query}")).ok()?;
    let mut response = Response::new(respond::full(""));
    *response.status_mut() = http::StatusCode::MOVED_PERMANENTLY;
    response.headers_mut().insert(header::LOCATION, location);
    Some(response)
}

/// `/proxy`: the answer's links lead back through the proxy.
async fn through(
    nodes: &NodeAccess,
    call: &Call<'_>,
    target: &Target,
    mut request: Request<RequestBody>,
) -> Result<Response<Body>, Status> {
    let host = request.headers().get(header::HOST).and_then(|h| h.to_str().ok());
    let path = encode_path(&call.context.info.path);
    let links = html::Links {
        prefix: path.strip_suffix(target.only_path()).unwrap_or(&path).to_owned(),
        hosts: [target.authority().to_string(), host.unwrap_or("").to_owned()],
    };
    if let Ok(uri) = http::HeaderValue::from_str(&path) {
        request.headers_mut().insert("x-forwarded-uri", uri);
    }
    let mut response = exchange(nodes, call, target, request).await?;
    headers::remove_sharing(response.headers_mut());
    Ok(html::rewrite(response, &links).await)
}

/// Logs: the kubelet's errors become a Status; over WebSocket its answer goes on as messages.
async fn logs(
    nodes: &NodeAccess,
    call: &Call<'_>,
    target: &Target,
    mut request: Request<RequestBody>,
) -> Result<Response<Body>, Status> {
    let handshake = streams::is_websocket(request.headers())
        .then(|| streams::messages::Handshake::of(&mut request));
    let response = exchange(nodes, call, target, request).await?;
    let response = checked::logs(&call.context.info.name, response).await?;
    let Some(handshake) = handshake else { return Ok(response) };
    let chunks = response.into_body().into_data_stream();
    let chunks = chunks.filter_map(|chunk| futures::future::ready(chunk.ok()));
    switched(&nodes.closing, handshake.bytes(chunks))
}

/// The answer to an upgrade; its session runs until it ends or the server does.
pub(crate) fn switched(
    closing: &CancellationToken,
    accepted: Result<streams::Upgrade, streams::Refusal>,
) -> Result<Response<Body>, Status> {
    let upgrade = accepted.map_err(|refusal| match refusal.code {
        403 => Status::failure(403, "Forbidden", refusal.message),
        _ => Status::bad_request(refusal.message),
    })?;
    until_closing(closing, upgrade.session);
    Ok(upgrade.response.map(|()| respond::full("")))
}

fn until_closing(closing: &CancellationToken, session: impl Future<Output = ()> + Send + 'static) {
    let closing = closing.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = session => {}
            () = closing.cancelled() => {}
        }
    });
}

async fn exchange(
    nodes: &NodeAccess,
    call: &Call<'_>,
    target: &Target,
    request: Request<RequestBody>,
) -> Result<Response<Body>, Status> {
    let outgoing = outgoing(request, target)?;
    let failed = |e: String| {
        let why = format!("dial tcp {}: {e}", target.authority());
        match call.row.subresource {
            "proxy" => Status::unavailable(format!("error trying to reach service: {why}")),
            _ => Status::internal(format!("error dialing backend: {why}")),
        }
    };
    let io = open(&*nodes.dialer, target).await.map_err(|e| failed(e.to_string()))?;
    forward(&nodes.closing, outgoing, io, failed).await
}

/// Sends a request on a connection. The answer streams; an upgrade is piped until it ends or the server does.
pub(crate) async fn forward<I>(
    closing: &CancellationToken,
    mut request: Request<RequestBody>,
    io: I,
    failed: impl Fn(String) -> Status,
) -> Result<Response<Body>, Status>
where
    I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let upgrade = streams::is_upgrade(request.headers());
    let client_side = upgrade.then(|| hyper::upgrade::on(&mut request));
    let mut response = send(io, request).await.map_err(|e| failed(e.to_string()))?;
    let status = response.status();
    let switches = status == http::StatusCode::SWITCHING_PROTOCOLS;
    match client_side {
        Some(client_side) if switches => {
            let node_side = hyper::upgrade::on(&mut response);
            until_closing(closing, pipe(client_side, node_side));
        }
        // Neither what was asked for nor a refusal: nobody could make sense of the rest.
        Some(_) if status.as_u16() < 400 => {
            let why = format!("invalid upgrade response: status code {}", status.as_u16());
            return Err(Status::internal(why));
        }
        None if switches => {
            return Err(Status::internal("the backend switched protocols unasked"));
        }
        _ => {}
    }
    let (mut parts, body) = response.into_parts();
    headers::of_answer(&mut parts.headers, switches);
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

async fn pipe(client: hyper::upgrade::OnUpgrade, node: hyper::upgrade::OnUpgrade) {
    let (Ok(client), Ok(node)) = tokio::join!(client, node) else { return };
    streams::relay(TokioIo::new(client), TokioIo::new(node)).await;
}

fn outgoing(
    request: Request<RequestBody>,
    target: &Target,
) -> Result<Request<RequestBody>, Status> {
    let (mut parts, body) = request.into_parts();
    parts.uri = target.path.parse::<Uri>().map_err(|e| Status::bad_request(e.to_string()))?;
    parts.version = http::Version::HTTP_11;
    headers::of_request(&mut parts.headers);
    if let Ok(host) = target.authority().to_string().parse() {
        parts.headers.insert(header::HOST, host);
    }
    Ok(Request::from_parts(parts, body))
}

async fn send<I>(
    io: I,
    request: Request<RequestBody>,
) -> Result<Response<hyper::body::Incoming>, hyper::Error>
where
    I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io)).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "the backend's connection ended");
        }
    });
    sender.send_request(request).await
}

/// GETs a path of a node's kubelet; at most `limit` bytes. `node` is the Node object.
pub(crate) async fn kubelet_text(
    dialer: &dyn NodeDialer,
    node: &serde_json::Value,
    path: &str,
    limit: usize,
) -> Result<String, String> {
    let target = target::of_kubelet(node, path).await.map_err(|status| status.message)?;
    let io = open(dialer, &target).await.map_err(|e| e.to_string())?;
    let request = Request::get(path)
        .header(header::HOST, target.authority().to_string())
        .body(http_body_util::Empty::new().map_err(Into::into).boxed_unsync());
    let request = request.map_err(|e| e.to_string())?;
    let response = send(io, request).await.map_err(|e| e.to_string())?;
    let code = response.status();
    let body = http_body_util::Limited::new(response.into_body(), limit).collect().await;
    let body = body.map_err(|e| e.to_string())?.to_bytes();
    let text = String::from_utf8_lossy(&body).into_owned();
    match code.is_success() {
        true => Ok(text),
        false => Err(format!("{code}: {}", text.chars().take(200).collect::<String>())),
    }
}

/// A connection to the target; the only place where one is opened.
async fn open(dialer: &dyn NodeDialer, target: &Target) -> std::io::Result<Box<dyn Io>> {
    let config = match target.way {
        Way::Plain => None,
        Way::Tls => Some(tls::anonymous()),
        Way::Kubelet { verified: true } => Some(dialer.kubelet_tls().usual),
        Way::Kubelet { verified: false } => Some(dialer.kubelet_tls().unverified),
    };
    let dial = tokio::time::timeout(outgoing::DIAL_TIMEOUT, dialer.dial(target.authority()));
    let tcp = dial.await.map_err(|_| timed_out("i/o timeout"))??;
    outgoing::configure(&tcp);
    let Some(config) = config else { return Ok(Box::new(tcp)) };
    let name = rustls::pki_types::ServerName::try_from(target.host.clone());
    let name = name.map_err(std::io::Error::other)?;
    let connector = tokio_rustls::TlsConnector::from(config);
    let greeted = tokio::time::timeout(outgoing::TLS_TIMEOUT, connector.connect(name, tcp));
    Ok(Box::new(greeted.await.map_err(|_| timed_out("TLS handshake timeout"))??))
}

fn timed_out(what: &str) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::TimedOut, what)
}

trait Io: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Io for T {}
