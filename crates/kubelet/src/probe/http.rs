//! HTTP and HTTPS requests to pods, for probes and hooks.
//!
//! Redirects are followed on the same host only, so that a pod cannot send its node elsewhere. Certificates
//! are not verified, as the API says of probes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue, LOCATION};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};

use super::url::{Url, plain};
use super::{dial, port};
use crate::config::Dialer;

/// Longest answer looked at.
const BODY_MAX: usize = 10 << 10;
/// Requests that a chain of redirects may have.
const REQUESTS_MAX: usize = 10;
/// What Go's client says when its time is over.
const TIMED_OUT: &str =
    "context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
const TIMED_OUT_IN_BODY: &str =
    "context deadline exceeded (Client.Timeout or context cancellation while reading body)";
/// What Go's client says of a server that does not speak TLS.
pub(crate) const NOT_TLS: &str = "http: server gave HTTP response to HTTPS client";

/// What is asked for, and by whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) url: Url,
    headers: Vec<(String, String)>,
    /// `probe` or `lifecycle`.
    purpose: &'static str,
}

impl Target {
    pub(crate) fn of(
        get: &HTTPGetAction,
        c: &Container,
        ip: &str,
        purpose: &'static str,
    ) -> Result<Target, String> {
        let host = get.host.as_deref().filter(|h| !h.is_empty()).unwrap_or(ip);
        let headers = get.http_headers.iter().flatten();
        let url = Url {
            tls: get.scheme.as_deref().is_some_and(|s| s.eq_ignore_ascii_case("https")),
            host: host.to_owned(),
            port: Some(port(&get.port, c)?),
            path: plain(get.path.as_deref().unwrap_or("")),
        };
        let headers = headers.map(|h| (h.name.clone(), h.value.clone())).collect();
        Ok(Target { url, headers, purpose })
    }

    fn host_header(&self) -> Option<&str> {
        let named = self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case("host"));
        named.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }
}

/// A whole answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
    location: Option<String>,
}

/// Why there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The server did not answer.
    Request(String),
    /// It began to.
    Body(String),
}

/// Asks, and follows redirects, until `limit` is over.
pub(crate) async fn get(
    dialer: &dyn Dialer,
    target: &Target,
    limit: Duration,
) -> Result<Answer, Failure> {
    let until = tokio::time::Instant::now() + limit;
    let mut at = target.url.clone();
    let mut host = target.host_header().map(str::to_owned);
    for _ in 0..REQUESTS_MAX {
        let failed = |why: &str| Failure::Request(format!("Get \"{at}\": {why}"));
        let answer =
            once(dialer, target, &at, host.as_deref(), until).await.map_err(|f| match f {
                Failure::Request(why) => failed(&why),
                body => body,
            })?;
        let Some(location) = answer.location.as_deref().filter(|_| is_redirect(answer.status))
        else {
            return Ok(answer);
        };
        let Some(next) = at.follow(location) else {
            return Err(failed(&format!("failed to parse Location header {location:?}")));
        };
        if next.host != target.url.host {
            return Ok(answer);
        }
        // A server that names itself names its host too.
        if location.contains("://") {
            host = None;
        }
        at = next;
    }
    Err(Failure::Request(format!("Get \"{}\": stopped after {REQUESTS_MAX} redirects", at.path)))
}

fn is_redirect(status: u16) -> bool {
    matches!(status, 301 | 302 | 303 | 307 | 308)
}

/// One request and its answer.
async fn once(
    dialer: &dyn Dialer,
    target: &Target,
    at: &Url,
    host: Option<&str>,
    until: tokio::time::Instant,
) -> Result<Answer, Failure> {
    let request = request(target, at, host).map_err(|e| Failure::Request(e.to_string()))?;
    let open = async {
        let stream = dial::tcp(dialer, &at.host, at.port()).await.map_err(Failure::Request)?;
        if !at.tls {
            return Ok(Box::new(stream) as Box<dyn Stream>);
        }
        let config = outgoing::client_config(outgoing::Trust::Anybody, None);
        let config = config.map_err(|e| Failure::Request(e.to_string()))?;
        let name = ServerName::try_from(at.host.clone());
        let name = name.map_err(|e| Failure::Request(e.to_string()))?;
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let tls = connector.connect(name, stream).await;
        Ok(Box::new(tls.map_err(|e| Failure::Request(tls_error(&e)))?) as Box<dyn Stream>)
    };
    let late = |_| Failure::Request(TIMED_OUT.to_owned());
    let stream = tokio::time::timeout_at(until, open).await.map_err(late)??;
    exchange(stream, request, until).await
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

fn tls_error(error: &std::io::Error) -> String {
    let inner = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidMessage(_)) => NOT_TLS.into(),
        Some(other) => format!("tls: {other}"),
        None => dial::errno(error),
    }
}

fn request(
    target: &Target,
    at: &Url,
    host: Option<&str>,
) -> Result<http::Request<Empty<Bytes>>, http::Error> {
    let mut headers = HeaderMap::new();
    for (name, value) in target.headers.iter().filter(|(n, _)| !n.eq_ignore_ascii_case("host")) {
        let name = HeaderName::from_bytes(name.as_bytes())?;
        headers.append(name, HeaderValue::from_bytes(value.as_bytes())?);
    }
    // A header that the pod gave, even an empty one, is the pod's to give.
    if !headers.contains_key("user-agent") {
        let agent = format!("kube-{}/1.36", target.purpose);
        headers.insert("user-agent", HeaderValue::from_str(&agent)?);
    }
    match headers.get("accept") {
        None => drop(headers.insert("accept", HeaderValue::from_static("*/*"))),
        Some(empty) if empty.is_empty() => drop(headers.remove("accept")),
        Some(_) => {}
    }
    let host = host.map_or_else(|| at.authority(), str::to_owned);
    headers.insert("host", HeaderValue::from_str(&host)?);
    headers.insert("connection", HeaderValue::from_static("close"));
    let mut request = http::Request::get(&at.path).body(Empty::new())?;
    *request.headers_mut() = headers;
    Ok(request)
}

async fn exchange(
    stream: Box<dyn Stream>,
    request: http::Request<Empty<Bytes>>,
    until: tokio::time::Instant,
) -> Result<Answer, Failure> {
    let asked = async {
        let shaken = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = shaken.map_err(|e| Failure::Request(words(&e)))?;
        let answer = async {
            let head = tokio::time::timeout_at(until, sender.send_request(request)).await;
            let head = head.map_err(|_| Failure::Request(TIMED_OUT.into()))?;
            let response = head.map_err(|e| Failure::Request(words(&e)))?;
            let location = response.headers().get(LOCATION);
            let location = location.map(|l| String::from_utf8_lossy(l.as_bytes()).into_owned());
            let status = response.status().as_u16();
            let body = tokio::time::timeout_at(until, read(response.into_body())).await;
            let body = body.map_err(|_| Failure::Body(TIMED_OUT_IN_BODY.into()))??;
            Ok(Answer { status, body, location })
        };
        // The connection is driven here and ends with the exchange: no task is left behind.
        tokio::pin!(answer);
        tokio::select! {
            answer = &mut answer => answer,
            ended = connection => match ended {
                Ok(()) => answer.await,
                Err(error) => Err(Failure::Request(words(&error))),
            },
        }
    };
    let late = |_| Failure::Request(TIMED_OUT.to_owned());
    // A handshake has no wait of its own; this one ends whatever does.
    tokio::time::timeout_at(until + Duration::from_millis(100), asked).await.map_err(late)?
}

/// The beginning of a body; its length does not matter.
async fn read(mut body: hyper::body::Incoming) -> Result<String, Failure> {
    let mut out: Vec<u8> = Vec::new();
    while out.len() < BODY_MAX {
        let Some(frame) = body.frame().await else { break };
        let frame = frame.map_err(|e| Failure::Body(words(&e)))?;
        let Ok(data) = frame.into_data() else { continue };
        out.extend_from_slice(&data[..data.len().min(BODY_MAX - out.len())]);
    }
    Ok(String::from_utf8_lossy(&out).into_owned())
}

/// A broken exchange in the words that Go has for it.
fn words(error: &hyper::Error) -> String {
    if error.is_incomplete_message() {
        return "EOF".into();
    }
    let cause = std::error::Error::source(error);
    if let Some(io) = cause.and_then(|c| c.downcast_ref::<std::io::Error>()) {
        return match io.kind() {
            std::io::ErrorKind::UnexpectedEof => "EOF".into(),
            _ => format!("read tcp: {}", dial::errno(io)),
        };
    }
    if error.is_parse() {
        return "net/http: HTTP/1.x transport connection broken: malformed HTTP response".into();
    }
    error.to_string()
}

#[cfg(test)]
mod tests;
