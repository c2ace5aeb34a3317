//! The span of each request (apiserver `endpoints/filters/traces.go`).
//!
//! Without a tracer nothing is recorded; who sends a W3C context still finds it in the requests that this one makes.

use std::sync::Arc;

use api::Status;
use auth::{RequestInfo, User};
use http::{HeaderMap, Response, header};
use traces::{Span, SpanContext, Tracer, within};

use super::audit::{AUDIT_ID, Peer};
use crate::exchange::{Exchange, Handler};
use resources::respond::Body;

/// Longest user agent that is told, in bytes (upstream's `truncatedUserAgent`).
const AGENT_MAX: usize = 1024;

pub(crate) struct Trace<H> {
    pub(super) tracer: Option<Arc<Tracer>>,
    pub(super) next: H,
}

impl<H: Handler> Handler for Trace<H> {
    async fn handle(&self, exchange: Box<Exchange>) -> Result<Response<Body>, Status> {
        let sender = SpanContext::of_headers(exchange.request.headers());
        let span = match (&self.tracer, sender) {
            (None, None) => None,
            (None, Some(sender)) => Some(Span::passing(sender)),
            (Some(tracer), sender) => Some(begin(tracer, sender, &exchange)),
        };
        let Some(mut span) = span else { return self.next.handle(exchange).await };
        let answered = within(Some(&span), self.next.handle(exchange)).await;
        let code = answered.as_ref().map_or_else(|status| status.code, |r| r.status().as_u16());
        span.set("http.response.status_code", i64::from(code));
        if code >= 500 {
            span.fail(answered.as_ref().err().map_or("", |status| &status.message));
        }
        answered
    }
}

fn begin(tracer: &Arc<Tracer>, sender: Option<SpanContext>, exchange: &Exchange) -> Span {
    let Exchange { user, info, request, .. } = exchange;
    let mut span = tracer.serve(&name(request.method().as_str(), info), sender, is_trusted(user));
    if !span.is_recorded() {
        return span;
    }
    let (headers, uri) = (request.headers(), request.uri());
    span.set("http.request.method", request.method().as_str());
    span.set("url.scheme", "https");
    span.set("url.path", uri.path());
    span.set("http.target", uri.path_and_query().map_or("/", |target| target.as_str()));
    span.set("server.address", uri.host().unwrap_or(text(headers, header::HOST.as_str())));
    let protocol = match request.version() {
        http::Version::HTTP_2 => "2",
        http::Version::HTTP_10 => "1.0",
        _ => "1.1",
    };
    span.set("network.protocol.name", "http");
    span.set("network.protocol.version", protocol);
    let agent = text(headers, header::USER_AGENT.as_str());
    span.set("user_agent.original", &agent[..agent.floor_char_boundary(AGENT_MAX)]);
    if let Some(Peer(peer)) = request.extensions().get::<Peer>() {
        span.set("network.peer.address", peer.to_string());
    }
    span.set("audit-id", text(headers, AUDIT_ID));
    span
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> &'h str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
}

/// Only these may have the server record their requests (`notSystemPrivilegedGroup`).
fn is_trusted(user: &User) -> bool {
    user.groups.iter().any(|group| matches!(group.as_str(), "system:masters" | "system:monitoring"))
}

/// The method, and for resources the path without names (`getSpanNameFromRequestInfo`).
fn name(method: &str, info: &RequestInfo) -> String {
    if !info.is_resource {
        return method.to_owned();
    }
    let mut name = format!("{method} /{}", if info.group.is_empty() { "api" } else { "apis" });
    for part in [&info.group, &info.version].into_iter().filter(|part| !part.is_empty()) {
        name += &format!("/{part}");
    }
    if !info.namespace.is_empty() {
        name += "/namespaces/{:namespace}";
    }
    name += &format!("/{}", info.resource);
    if !info.name.is_empty() {
        name += "/{:name}";
    }
    if !info.subresource.is_empty() {
        name += &format!("/{}", info.subresource);
    }
    name
}

#[cfg(test)]
mod tests {
    use auth::RequestInfo;
    use http::Method;

    use super::name;

    #[test]
    fn spans_have_the_names_of_upstreams() {
        for (path, want) in [
            ("/api/v1/nodes", "GET /api/v1/nodes"),
            (
                "/api/v1/namespaces/a/pods/p/log",
                "GET /api/v1/namespaces/{:namespace}/pods/{:name}/log",
            ),
            ("/apis/apps/v1/deployments", "GET /apis/apps/v1/deployments"),
            ("/healthz", "GET"),
        ] {
            let info = RequestInfo::parse(&Method::GET, path, false);
            assert_eq!(name("GET", &info), want);
        }
    }
}
