//! Calls of webhooks: JSON over TLS to a URL or to a service of the cluster.
//!
//! Whatever a webhook is for, this is how it is reached: the address is found again for each
//! connection, connections are kept and used again, an answer is bounded in time and size, and
//! errors read as those of upstream's client, because users look for them.

mod connect;
mod resolve;
mod target;
mod tls;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client as Pool;
use serde_json::Value;

use connect::Connector;
pub(crate) use resolve::Network;
use target::Target;

/// Longest wait for an answer (apiserver's `config.Timeout` of webhook clients).
pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);
/// Longest answer, in bytes, to a short question; a long one may be answered at four times its length.
const ANSWER_MAX: usize = 16 * 1024 * 1024;
/// An answer that takes longer is told in the log (apiserver's 50 ms for a call).
const SLOW: Duration = Duration::from_millis(50);

/// One webhook's client: what it is configured to reach, and the connections to it.
pub(crate) struct Client {
    target: Target,
    pool: Pool<Connector, Full<Bytes>>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "webhook::Client({})", self.target.uri)
    }
}

impl Client {
    /// A client of a `clientConfig`; the error says what of it cannot be used.
    pub(crate) fn new(config: &Value, network: Network) -> Result<Client, String> {
        let target = Target::parse(config)?;
        let tls = tls::config(config["caBundle"].as_str().unwrap_or(""))?;
        let connector = Connector::new(target.clone(), Arc::new(tls), network)?;
        let pool = outgoing::pool_builder().build(connector);
        Ok(Client { target, pool })
    }

    /// Sends a question and reads the answer, within [`TIMEOUT`]. The error is the sentence of
    /// Go's client: what was asked of whom, and why it failed.
    pub(crate) async fn post(&self, question: &Value) -> Result<Value, String> {
        let begun = Instant::now();
        let asked = tokio::time::timeout(TIMEOUT, self.exchange(question)).await;
        let took = begun.elapsed();
        if took > SLOW {
            tracing::info!(webhook = self.target.uri, ?took, "a webhook was slow");
        }
        asked.unwrap_or_else(|_| Err(self.failed("context deadline exceeded")))
    }

    fn failed(&self, why: impl std::fmt::Display) -> String {
        format!("Post \"{}\": {why}", self.target.uri)
    }

    async fn exchange(&self, question: &Value) -> Result<Value, String> {
        let body = Bytes::from(question.to_string());
        let limit = ANSWER_MAX.max(body.len().saturating_mul(4));
        let request = Request::builder()
            .method(Method::POST)
            .uri(&self.target.uri)
            .header(header::ACCEPT, "application/json, */*")
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, "trireme/v1.36.2")
            .body(Full::new(body))
            .map_err(|e| self.failed(e))?;
        let response = self.pool.request(request).await;
        let response = response.map_err(|e| self.failed(connect::cause(&e)))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), limit).collect().await;
        let body = body.map_err(|e| self.failed(e))?.to_bytes();
        read(status, &body)
    }
}

/// The answer's tree; what client-go says of an answer that is none.
fn read(status: StatusCode, body: &[u8]) -> Result<Value, String> {
    let tree: Result<Value, _> = serde_json::from_slice(body);
    let told = tree.as_ref().ok().filter(|tree| tree["kind"] == "Status");
    if let Some(status) = told.filter(|status| status["status"] != "Success") {
        return Err(status["message"].as_str().unwrap_or("unknown").to_owned());
    }
    if !status.is_success() {
        return Err(refused(status.as_u16(), &String::from_utf8_lossy(body)));
    }
    tree.map_err(|e| {
        let fault = validation::go_syntax_fault(body).unwrap_or_else(|| e.to_string());
        format!("couldn't get version/kind; json parse error: {fault}")
    })
}

/// An error answer without a `Status` (client-go's `NewGenericServerResponse`).
fn refused(code: u16, text: &str) -> String {
    match code {
        401 => "the server has asked for the client to provide credentials".into(),
        403 if text.is_empty() => "the server does not allow access to the requested resource".into(),
        403 => text.into(),
        404 => "the server could not find the requested resource".into(),
        405 => "the server does not allow this method on the requested resource".into(),
        429 => "the server has received too many requests and has asked us to try again later".into(),
        503 => "the server is currently unable to handle the request".into(),
        504 => "the server was unable to return a response in the time allotted, but may still be processing the request".into(),
        500.. => format!("an error on the server ({text:?}) has prevented the request from succeeding"),
        _ => format!("the server responded with the status code {code} but did not return more information"),
    }
}
