//! Static pods of a URL: one pod, or a list of them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Mutex;

use super::manifest::{Origin, Reader};
use super::{MANIFEST_MAX, Sink, Source};
use crate::config::KubeletConfig;

/// Of one request, its answer included.
const DEADLINE: Duration = Duration::from_secs(10);
/// Failures in a row that are told; then only the first success is.
const TOLD_MAX: u32 = 3;

pub(super) struct Fetcher {
    url: String,
    headers: Vec<(String, String)>,
    period: Duration,
    sink: Sink,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    last: Option<Bytes>,
    failures: u32,
}

impl Fetcher {
    pub(super) fn new(url: String, config: &KubeletConfig, sink: Sink) -> Fetcher {
        Fetcher {
            url,
            headers: config.static_pods.url_headers.clone(),
            period: config.static_pods.http_check,
            sink,
            state: Mutex::default(),
        }
    }

    pub(super) async fn run(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(self.period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.read().await;
        }
    }

    /// What cannot be read leaves the pods as they are.
    async fn read(&self) {
        let mut state = self.state.lock().await;
        let fetched = tokio::time::timeout(DEADLINE, fetch(&self.url, &self.headers)).await;
        let fetched = fetched.unwrap_or_else(|_| Err("context deadline exceeded".to_owned()));
        match fetched.and_then(|text| self.take(&mut state, text)) {
            Ok(()) => {
                if state.failures > 0 {
                    tracing::info!(url = self.url, "successfully read pods from URL");
                }
                state.failures = 0;
            }
            Err(error) => {
                state.failures += 1;
                match state.failures {
                    1..=TOLD_MAX => {
                        tracing::warn!(url = self.url, error, "failed to read pods from URL")
                    }
                    _ => tracing::debug!(url = self.url, error, "failed to read pods from URL"),
                }
            }
        }
    }

    fn take(&self, state: &mut State, text: Bytes) -> Result<(), String> {
        if text.is_empty() {
            self.sink.replace(Source::Url, Vec::new());
            state.last = None;
            return Err("zero-length data received".to_owned());
        }
        if state.last.as_ref() == Some(&text) {
            return Ok(());
        }
        let origin = Origin::Url(self.url.clone());
        let reader = Reader { node: &self.sink.shared.config.node_name, origin: &origin };
        let pods = reader.pods(&text)?;
        state.last = Some(text);
        self.sink.replace(Source::Url, pods);
        Ok(())
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

async fn open(uri: &Uri) -> Result<Box<dyn Stream>, String> {
    let host = uri.host().ok_or("no host in request URL")?.trim_matches(['[', ']']);
    let is_tls = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        other => return Err(format!("unsupported protocol scheme {:?}", other.unwrap_or(""))),
    };
    let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
    let tcp = outgoing::connect(host, port).await.map_err(|e| e.to_string())?;
    if !is_tls {
        return Ok(Box::new(tcp));
    }
    let trust = outgoing::Trust::Authorities(outgoing::machine_roots());
    let mut config = outgoing::client_config(trust, None).map_err(|e| e.to_string())?;
    config.alpn_protocols.clear();
    let name = ServerName::try_from(host.to_owned()).map_err(|e| e.to_string())?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = connector.connect(name, tcp).await.map_err(|e| e.to_string())?;
    Ok(Box::new(stream))
}

fn request(uri: &Uri, headers: &[(String, String)]) -> Result<http::Request<Empty<Bytes>>, String> {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = http::Request::get(path).body(Empty::new()).map_err(|e| e.to_string())?;
    let map = request.headers_mut();
    let authority = uri.authority().map_or("", |a| a.as_str());
    map.insert("host", HeaderValue::from_str(authority).map_err(|e| e.to_string())?);
    map.insert("user-agent", HeaderValue::from_static("kubelet/v1.36.2"));
    map.insert("connection", HeaderValue::from_static("close"));
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|e| e.to_string())?;
        map.append(name, HeaderValue::from_str(value).map_err(|e| e.to_string())?);
    }
    Ok(request)
}

async fn fetch(url: &str, headers: &[(String, String)]) -> Result<Bytes, String> {
    let uri: Uri = url.parse().map_err(|e| format!("{e}"))?;
    let request = request(&uri, headers)?;
    let stream = open(&uri).await?;
    let shaken = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.map_err(|e| e.to_string())?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MANIFEST_MAX).collect().await;
        let body = body.map_err(|e| e.to_string())?.to_bytes();
        if status == http::StatusCode::OK { Ok(body) } else { Err(format!("{url}: {status}")) }
    };
    // The connection is driven here and ends with the exchange.
    tokio::pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        ended = connection => match ended {
            Ok(()) => answer.await,
            Err(error) => Err(error.to_string()),
        },
    }
}
