//! The HTTPS transport: for agents, components that run alone, and command lines.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client as HttpClient;
use outgoing::{Connector, ReadIdle};

use tasks::Tasks;

use crate::error::Error;
use crate::figures;
use crate::follow::{Follow, Follower};
use crate::transport::{BoxFuture, Request, Response, Transport};

mod auth;
mod certificate;
mod connect;
mod lanes;
mod watch;

pub use auth::{Auth, Proof};
pub use connect::{Credentials, HttpsConfig};
use lanes::{Held, Lanes, Place};

/// Longest wait for an answer's head; watches are bounded by their own timeout.
const REQUEST_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(60);

/// Longest pause while an answer comes in.
const READ_IDLE: std::time::Duration = std::time::Duration::from_secs(60);
/// Longest answer: a page of 500 of the largest objects.
const BODY_MAX: usize = 1 << 30;

type Http = HttpClient<Connector, Full<Bytes>>;

/// A connection pool to one API server. Clones share it.
#[derive(Clone)]
pub struct HttpsTransport {
    shared: Arc<Shared>,
}

struct Shared {
    /// The pools, and the generation of the certificate that their connections show.
    lanes: Mutex<(u64, Lanes<Http>)>,
    config: HttpsConfig,
    auth: Auth,
    /// `https://host:port`.
    server: String,
    tasks: Tasks,
}

impl std::fmt::Debug for HttpsTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HttpsTransport({})", self.shared.server)
    }
}

impl HttpsTransport {
    /// Follows run in `tasks`.
    pub fn new(config: HttpsConfig, tasks: Tasks) -> Result<HttpsTransport, rustls::Error> {
        let auth = Auth::new(config.credentials.clone())?;
        // Faults of the configuration are told now.
        connect::connector(&config, &auth)?;
        let lanes = Mutex::new((0, Lanes::new()));
        let server = config.server.trim_end_matches('/').to_owned();
        Ok(HttpsTransport { shared: Arc::new(Shared { lanes, config, auth, server, tasks }) })
    }

    /// A pool whose connections show the present certificate, and a place in it.
    fn pool(&self, generation: u64) -> Result<(Http, Place), rustls::Error> {
        let shared = &self.shared;
        let mut lanes = shared.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        if lanes.0 != generation {
            *lanes = (generation, Lanes::new());
        }
        lanes.1.place(|| {
            let connector = connect::connector(&shared.config, &shared.auth)?;
            Ok(outgoing::pool_builder().build(connector))
        })
    }

    /// The server's host and port.
    fn host(&self) -> &str {
        let server = self.shared.server.as_str();
        server.split_once("://").map_or(server, |(_, host)| host).trim_end_matches('/')
    }

    async fn send(&self, request: Request) -> Result<http::Response<Held>, Error> {
        let target = request.target.clone();
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::Transport {
            target: target.clone(),
            source,
        };
        let (method, begun) = (request.method.clone(), std::time::Instant::now());
        let mut builder = http::Request::builder()
            .method(request.method)
            .uri(format!("{}{}", self.shared.server, request.target))
            .header("accept", "application/json")
            .header("user-agent", "trireme/v1.36.2");
        if !request.body.is_empty() {
            builder =
                builder.header("content-type", request.content_type.unwrap_or("application/json"));
        }
        let proof = self
            .shared
            .auth
            .proof()
            .await
            .map_err(|e| failed(format!("getting credentials: {e}").into()))?;
        if let Some(authorization) = &proof.authorization {
            builder = builder.header("authorization", authorization);
        }
        let mut request = builder.body(Full::new(request.body)).map_err(|e| failed(e.into()))?;
        let (http, place) = self.pool(proof.generation).map_err(|e| failed(e.into()))?;
        let mut span = span(&request);
        let sent = async {
            traces::inject(request.headers_mut());
            tokio::time::timeout(REQUEST_TIMEOUT, http.request(request)).await
        };
        let answer = traces::within(span.as_ref(), sent).await;
        if let (Some(span), Ok(Ok(answer))) = (&mut span, &answer) {
            span.set("http.response.status_code", i64::from(answer.status().as_u16()));
        }
        let code = answer.as_ref().ok().and_then(|answer| answer.as_ref().ok());
        let code = code.map(|answer| answer.status().as_u16());
        figures::requested(code, method.as_str(), self.host(), begun.elapsed());
        let answer = answer.map_err(|e| failed(e.into()))?.map_err(|e| failed(e.into()))?;
        if answer.status() == http::StatusCode::UNAUTHORIZED {
            self.shared.auth.refused(&proof).await;
        }
        Ok(answer.map(|body| Held::new(body, place)))
    }

    async fn call(&self, request: Request) -> Result<Response, Error> {
        let target = request.target.clone();
        let response = self.send(request).await?;
        let code = response.status();
        let body = Limited::new(ReadIdle::new(response.into_body(), READ_IDLE), BODY_MAX);
        let body = body.collect().await;
        let body = body.map_err(|source| Error::Transport { target, source })?.to_bytes();
        if code.is_success() {
            return Ok(Response { code, body });
        }
        let text = || String::from_utf8_lossy(&body).into_owned();
        let status = serde_json::from_slice(&body)
            .unwrap_or_else(|_| api::Status::failure(code.as_u16(), "", text()));
        Err(Error::Api(Box::new(status)))
    }
}

impl Transport for HttpsTransport {
    fn call(&self, request: Request) -> BoxFuture<'_, Result<Response, Error>> {
        Box::pin(self.call(request))
    }

    fn follow(&self, follow: Follow) -> Follower {
        let (sender, follower) = Follower::channel();
        self.shared.tasks.spawn("follow", watch::run(self.clone(), follow, sender));
        follower
    }
}

/// The span of a request, if the task works for one (otelhttp's transport).
fn span<B>(request: &http::Request<B>) -> Option<traces::Span> {
    let name = match *request.method() {
        http::Method::GET => "HTTP GET",
        http::Method::POST => "HTTP POST",
        http::Method::PUT => "HTTP PUT",
        http::Method::PATCH => "HTTP PATCH",
        http::Method::DELETE => "HTTP DELETE",
        _ => "HTTP",
    };
    let mut span = traces::start(name, traces::Kind::Client)?;
    span.set("http.request.method", request.method().as_str());
    span.set("url.full", request.uri().to_string());
    Some(span)
}
