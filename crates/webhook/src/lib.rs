//! The client of webhooks: JSON over TLS to a URL, to a service of the cluster, or to the server of a
//! kubeconfig.
//!
//! It does not know what is asked. The address is resolved for each connection, connections are kept and
//! used again, an answer is bounded in time and size, and errors read as those of upstream's client,
//! because users look for them.

mod answer;
mod connect;
mod endpoint;
mod target;
mod tls;

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use client::{Auth, Proof};
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client as HttpClient;
use serde_json::Value;
use tokio::net::TcpStream;

pub use answer::Failure;
pub use connect::{dial_host, go_error};
pub use endpoint::Endpoint;
pub use tls::client_tls;

use connect::Connector;

/// Longest wait for an answer, unless the caller says otherwise (apiserver's `config.Timeout` of webhook
/// clients).
pub const TIMEOUT: Duration = Duration::from_secs(30);
/// Longest answer, in bytes, to a short question; a long one may be answered at four times its length.
const ANSWER_MAX: usize = 16 * 1024 * 1024;
/// An answer that takes longer is logged (apiserver's 50 ms for a call).
const SLOW: Duration = Duration::from_millis(50);

pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The way to the cluster's services.
pub trait Services: Send + Sync {
    /// A connection to a port of a service (namespace, name); the error is upstream's text.
    fn connect<'a>(
        &'a self,
        service: (&'a str, &'a str),
        port: u16,
    ) -> BoxFuture<'a, Result<TcpStream, String>>;
}

type Pool = HttpClient<Connector, Full<Bytes>>;

/// The client of one webhook, with its connections.
pub struct Client {
    endpoint: Endpoint,
    auth: Auth,
    services: Arc<dyn Services>,
    /// The pool, and the generation of the client certificate that its connections show.
    pool: Mutex<(u64, Pool)>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "webhook::Client({})", self.endpoint.target.uri)
    }
}

impl Client {
    /// Fails when something of the endpoint cannot be used.
    pub fn new(endpoint: Endpoint, services: Arc<dyn Services>) -> Result<Client, String> {
        let auth = Auth::new(endpoint.credentials.clone()).map_err(|e| e.to_string())?;
        let pool = Mutex::new((0, connect(&endpoint, &auth, &services)?));
        Ok(Client { endpoint, auth, services, pool })
    }

    /// Sends a question and reads the answer, within `timeout`, of which the webhook is told. The error is
    /// the sentence of Go's client: what was asked of whom, and why it failed.
    pub async fn post(&self, question: &Value, timeout: Duration) -> Result<Value, Failure> {
        let (status, body) = self.send(question.to_string(), timeout).await?;
        answer::read(status, &body)
    }

    /// Sends JSON whose answer says no more than its status code.
    pub async fn notify(&self, json: String, timeout: Duration) -> Result<(), Failure> {
        let (status, body) = self.send(json, timeout).await?;
        match status.is_success() {
            true => Ok(()),
            false => answer::read(status, &body).map(drop),
        }
    }

    async fn send(&self, json: String, timeout: Duration) -> Result<(StatusCode, Bytes), Failure> {
        let begun = Instant::now();
        let seconds = timeout.as_millis().div_ceil(1000);
        let uri = format!("{}?timeout={seconds}s", self.endpoint.target.uri);
        let asked = tokio::time::timeout(timeout, self.exchange(&uri, json)).await;
        let took = begun.elapsed();
        if took > SLOW {
            tracing::info!(webhook = uri, ?took, "a webhook was slow");
        }
        asked.unwrap_or_else(|_| Err(failed(&uri, "context deadline exceeded")))
    }

    async fn exchange(&self, uri: &str, json: String) -> Result<(StatusCode, Bytes), Failure> {
        let body = Bytes::from(json);
        let limit = ANSWER_MAX.max(body.len().saturating_mul(4));
        let proof = self.auth.proof().await;
        let proof = proof.map_err(|e| failed(uri, format!("getting credentials: {e}")))?;
        let mut request = self.request(uri, &proof, body).map_err(|e| failed(uri, e))?;
        traces::inject(request.headers_mut());
        let pool = self.pool(proof.generation).map_err(|e| failed(uri, e))?;
        let response = pool.request(request).await;
        let response = response.map_err(|e| failed(uri, connect::cause(&e)))?;
        let status = response.status();
        if status == StatusCode::UNAUTHORIZED {
            self.auth.refused(&proof).await;
        }
        let body = Limited::new(response.into_body(), limit).collect().await;
        let body = body.map_err(|e| failed(uri, e))?.to_bytes();
        Ok((status, body))
    }

    fn request(
        &self,
        uri: &str,
        proof: &Proof,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, http::Error> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(uri)
            .header(header::ACCEPT, "application/json, */*")
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, "kube-apiserver-admission");
        if let Some(authorization) = &proof.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        for (name, value) in &self.endpoint.headers {
            request = request.header(name, value);
        }
        request.body(Full::new(body))
    }

    /// The pool whose connections show the present certificate.
    fn pool(&self, generation: u64) -> Result<Pool, String> {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        if pool.0 != generation {
            *pool = (generation, connect(&self.endpoint, &self.auth, &self.services)?);
        }
        Ok(pool.1.clone())
    }
}

fn connect(endpoint: &Endpoint, auth: &Auth, services: &Arc<dyn Services>) -> Result<Pool, String> {
    let tls = Arc::new(tls::config(endpoint, auth.certificate())?);
    let connector = Connector::new(endpoint.target.clone(), tls, services.clone())?;
    Ok(outgoing::pool_builder().build(connector))
}

fn failed(uri: &str, why: impl std::fmt::Display) -> Failure {
    Failure::new(format!("Post \"{uri}\": {why}"))
}

#[cfg(test)]
mod tests;
