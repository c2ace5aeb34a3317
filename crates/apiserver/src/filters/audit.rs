//! Tells the audit of each request, by its policy (apiserver `endpoints/filters` `WithAudit`).

use std::net::IpAddr;
use std::sync::Arc;

use ::audit::{Auditor, Record, Stage};
use api::Status;
use auth::User;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};

use crate::exchange::{Exchange, Handler};
use resources::audited_tokens;
use resources::metrics::Metrics;
use resources::respond::{self, Body};

/// The header that names a request in the audit.
pub(crate) const AUDIT_ID: &str = "audit-id";

/// Where the connection comes from; an extension of requests from the network.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// Why a client's certificate is not believed; an extension of its requests.
#[derive(Debug, Clone)]
pub(crate) struct Stranger(pub(crate) Arc<str>);

pub(crate) struct Audit<H> {
    pub(super) auditor: Option<Arc<Auditor>>,
    pub(super) next: H,
}

impl<H: Handler> Handler for Audit<H> {
    async fn handle(&self, mut exchange: Box<Exchange>) -> Result<Response<Body>, Status> {
        let begun = self.auditor.as_ref().and_then(|all| begin(all, &exchange, &exchange.user));
        let Some(record) = begun else {
            return self.next.handle(exchange).await;
        };
        if !record.tell(Stage::RequestReceived).await {
            return Err(Status::internal("failed to store audit event"));
        }
        let is_stream = exchange.info.is_long_running();
        if let Some(used) = exchange.legacy_token.get() {
            audited_tokens::tell_use(&record, used);
        }
        exchange.audit = Some(record.clone());
        let ending = Ending(Some(record.clone()));
        let answered = self.next.handle(exchange).await;
        match &answered {
            Ok(response) => record.answered(response.status().as_u16()),
            Err(status) => record.failed(status),
        }
        if is_stream {
            record.tell(Stage::ResponseStarted).await;
            return answered.map(|response| response.map(|body| respond::kept(body, ending)));
        }
        ending.end().await;
        answered
    }
}

/// Tells the end of a request, also of one that is given up.
struct Ending(Option<Arc<Record>>);

impl Ending {
    async fn end(mut self) {
        if let Some(record) = self.0.take() {
            record.tell(Stage::ResponseComplete).await;
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        if let Some(record) = self.0.take() {
            record.closed_early();
            record.tell_later(if std::thread::panicking() {
                Stage::Panic
            } else {
                Stage::ResponseComplete
            });
        }
    }
}

/// The audit of a request, when the policy wants one.
fn begin(auditor: &Arc<Auditor>, exchange: &Exchange, user: &User) -> Option<Arc<Record>> {
    let headers = exchange.request.headers();
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("");
    let uri = exchange.request.uri().path_and_query().map_or("/", |uri| uri.as_str());
    auditor.begin(&exchange.info, user, |audited| ::audit::Request {
        audited,
        id: text(AUDIT_ID),
        uri,
        agent: text(header::USER_AGENT.as_str()),
        sources: sources(headers, exchange.request.extensions().get::<Peer>().map(|peer| peer.0)),
        received: exchange.received,
    })
}

/// The audit of a request whose sender is not known (`WithFailedAuthenticationAudit`).
pub(super) fn unknown_sender(
    auditor: &Arc<Auditor>,
    exchange: &Exchange,
    status: &Status,
) -> Option<Arc<Record>> {
    let record = begin(auditor, exchange, &User::default())?;
    let headers = exchange.request.headers();
    let sent = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).unwrap_or("");
    let scheme = sent.split_whitespace().next().unwrap_or("").to_ascii_lowercase();
    let has_stranger = exchange.request.extensions().get::<Stranger>().is_some();
    let tried = [
        ("basic", scheme == "basic"),
        ("bearer", scheme == "bearer"),
        ("x509", has_stranger || exchange.certificate.is_some()),
    ];
    let tried: Vec<&str> = tried.iter().filter(|(_, is)| *is).map(|(name, _)| *name).collect();
    let message = match tried.as_slice() {
        [] => "Authentication failed, no credentials provided".to_owned(),
        all => format!("Authentication failed, attempted: {}", all.join(", ")),
    };
    record.refused(status.code, &message);
    Some(record)
}

/// Who sent it, as proxies on its way say, and where the connection comes from (apimachinery `SourceIPs`).
fn sources(headers: &HeaderMap, peer: Option<IpAddr>) -> Vec<String> {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("");
    let mut all: Vec<IpAddr> =
        text("x-forwarded-for").split(',').filter_map(|part| part.trim().parse().ok()).collect();
    if all.is_empty() {
        all.extend(text("x-real-ip").trim().parse::<IpAddr>());
    }
    all.extend(peer.filter(|peer| all.last() != Some(peer)));
    all.iter().map(IpAddr::to_string).collect()
}

/// The number of events and of lost ones, for metrics.
pub(crate) fn count(metrics: &Metrics, auditor: Arc<Auditor>) {
    metrics.add_source(move || {
        let (made, lost) = auditor.counts();
        let family = |name, help, n: u64| {
            telemetry::family((name, "counter", help), [([("", ""); 0], n as f64)])
        };
        family("apiserver_audit_event_total", "Audit events that were made.", made)
            + &family(
                "apiserver_audit_requests_rejected_total",
                "Events that some place did not get.",
                lost,
            )
    });
}

/// The request with a name: its client's, or a new one (`WithAuditInit`).
pub(crate) fn named<B>(mut request: Request<B>) -> (Request<B>, HeaderValue) {
    let given = request.headers().get(AUDIT_ID).filter(|id| !id.is_empty()).cloned();
    let id = given.unwrap_or_else(|| {
        let id = HeaderValue::from_str(&uuid::Uuid::new_v4().to_string());
        let id = id.expect("an id is plain text");
        request.headers_mut().insert(AUDIT_ID, id.clone());
        id
    });
    (request, id)
}

/// Tells the client its request's name.
pub(crate) fn name(response: &mut Response<Body>, id: HeaderValue) {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(AUDIT_ID, id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_come_before_the_connection() {
        let headers = |pairs: &[(&'static str, &str)]| {
            let pairs = pairs.iter().map(|(name, value)| {
                (http::HeaderName::from_static(name), value.parse().expect("a value"))
            });
            HeaderMap::from_iter(pairs)
        };
        let peer = Some(IpAddr::from([192, 0, 2, 9]));
        let forwarded = headers(&[
            ("x-forwarded-for", "192.0.2.1, x, 2001:db8::1"),
            ("x-real-ip", "192.0.2.2"),
        ]);
        assert_eq!(sources(&forwarded, peer), ["192.0.2.1", "2001:db8::1", "192.0.2.9"]);
        assert_eq!(sources(&headers(&[("x-real-ip", "192.0.2.9")]), peer), ["192.0.2.9"]);
        assert_eq!(sources(&headers(&[]), None), Vec::<String>::new());
    }
}
