//! The HTTPS transport: for agents, components that run alone, and command lines.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use crate::error::Error;
use crate::follow::{Follow, Follower};
use crate::tasks::Tasks;
use crate::transport::{BoxFuture, Request, Response, Transport};

mod connect;
mod watch;

pub use connect::{Credentials, HttpsConfig};

/// Longest wait for an answer's head; watches are bounded by their own timeout.
const REQUEST_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(60);

type Http = HttpClient<connect::TlsConnector<HttpConnector>, Full<Bytes>>;

/// A connection pool to one API server. Clones share it.
#[derive(Clone)]
pub struct HttpsTransport {
    shared: Arc<Shared>,
}

struct Shared {
    http: Http,
    /// `https://host:port`.
    server: String,
    bearer: Option<String>,
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
        let bearer = config.credentials.bearer();
        let connector = connect::connector(&config)?;
        let http = HttpClient::builder(TokioExecutor::new()).build(connector);
        let server = config.server.trim_end_matches('/').to_owned();
        Ok(HttpsTransport { shared: Arc::new(Shared { http, server, bearer, tasks }) })
    }

    async fn send(&self, request: Request) -> Result<http::Response<Incoming>, Error> {
        let target = request.target.clone();
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::Transport {
            target: target.clone(),
            source,
        };
        let mut builder = http::Request::builder()
            .method(request.method)
            .uri(format!("{}{}", self.shared.server, request.target))
            .header("accept", "application/json")
            .header("user-agent", "trireme/v1.36.2");
        if !request.body.is_empty() {
            builder =
                builder.header("content-type", request.content_type.unwrap_or("application/json"));
        }
        if let Some(token) = &self.shared.bearer {
            builder = builder.header("authorization", format!("Bearer {token}"));
        }
        let request = builder.body(Full::new(request.body)).map_err(|e| failed(e.into()))?;
        let answer = tokio::time::timeout(REQUEST_TIMEOUT, self.shared.http.request(request)).await;
        answer.map_err(|e| failed(e.into()))?.map_err(|e| failed(e.into()))
    }

    async fn call(&self, request: Request) -> Result<Response, Error> {
        let target = request.target.clone();
        let response = self.send(request).await?;
        let code = response.status();
        let body = response.into_body().collect().await;
        let body = body.map_err(|e| Error::Transport { target, source: e.into() })?.to_bytes();
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
