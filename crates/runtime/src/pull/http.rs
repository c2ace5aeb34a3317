//! The little of an HTTP client that pulling needs: requests over plain TCP or TLS, one connection each.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, HOST, LOCATION};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use outgoing::{Identity, Trust};
use registries::{Endpoint, KeyPair, Tls};
use rustls::ClientConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;

use super::Cause;
use crate::config::PullLimits;

/// Redirects in a row: blobs are mostly one away.
const MAX_REDIRECTS: usize = 5;

pub(super) struct Http {
    /// For the host that this client is for: with our certificate, if we have one.
    home_tls: Arc<ClientConfig>,
    /// For hosts that it leads to.
    tls: Arc<ClientConfig>,
    /// `host[:port]`; empty: there is none.
    home: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    limits: PullLimits,
}

/// Whoever listens there speaks no TLS.
#[derive(Debug, thiserror::Error)]
#[error("TLS handshake")]
pub(super) struct NotTls(#[source] io::Error);

/// An answer; its connection ends with it.
pub(super) struct Answer {
    pub(super) response: Response<Incoming>,
    /// Where it came from, after redirects.
    pub(super) uri: Uri,
    _connection: Connection,
    limit: Duration,
}

struct Connection(AbortHandle);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Answer {
    /// The whole body, if it is no longer than `limit` bytes.
    pub(super) async fn bytes(self, limit: usize) -> Result<Bytes, Cause> {
        let body = Limited::new(self.response.into_body(), limit).collect();
        let body = tokio::time::timeout(self.limit, body).await;
        let body = body.map_err(|_| "the answer does not come to its end in time")?;
        let body = body.map_err(|e| match e.is::<LengthLimitError>() {
            true => format!("the answer has more than {limit} bytes").into(),
            false => e,
        });
        Ok(body?.to_bytes())
    }
}

impl Http {
    /// For any host, by the machine's authorities.
    pub(super) fn new(limits: PullLimits) -> Result<Http, Cause> {
        let trust = Trust::Authorities(outgoing::machine_roots());
        let tls = Arc::new(outgoing::client_config(trust, None)?);
        let home_tls = tls.clone();
        Ok(Http { home_tls, tls, home: String::new(), headers: Vec::new(), limits })
    }

    /// For a registry's host, as its configuration says.
    pub(super) fn to(endpoint: &Endpoint, limits: PullLimits) -> Result<Http, Cause> {
        let trust = trust(&endpoint.tls)?;
        let identity = endpoint.tls.client.as_ref().map(identity).transpose()?;
        Ok(Http {
            home_tls: Arc::new(outgoing::client_config(trust.clone(), identity)?),
            tls: Arc::new(outgoing::client_config(trust, None)?),
            home: endpoint.host.clone(),
            headers: endpoint.headers.clone(),
            limits: PullLimits {
                connect: endpoint.dial_timeout.unwrap_or(limits.connect),
                ..limits
            },
        })
    }

    fn is_home(&self, uri: &Uri) -> bool {
        uri.authority().is_some_and(|a| a.as_str() == self.home)
    }

    /// Sends a request and follows redirects; credentials stay with the first host.
    pub(super) async fn send(
        &self,
        method: Method,
        uri: Uri,
        mut headers: HeaderMap,
        body: Bytes,
    ) -> Result<Answer, Cause> {
        let mut uri = uri;
        for _ in 0..=MAX_REDIRECTS {
            let answer = self.once(&method, &uri, &headers, body.clone()).await?;
            let moved = answer.response.status().is_redirection();
            let Some(to) = answer.response.headers().get(LOCATION).filter(|_| moved) else {
                return Ok(answer);
            };
            let next = resolve(&uri, to.to_str()?)?;
            if next.authority() != uri.authority() || next.scheme() != uri.scheme() {
                headers.remove(AUTHORIZATION);
            }
            if uri.scheme_str() == Some("https") && next.scheme_str() != Some("https") {
                return Err(format!("redirect from {uri} leaves TLS").into());
            }
            uri = next;
        }
        Err(format!("more than {MAX_REDIRECTS} redirects, the last to {uri}").into())
    }

    async fn once(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Answer, Cause> {
        let host = uri.host().ok_or("no host")?;
        let tls = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let mut request =
            Request::builder().method(method).uri(uri.path_and_query().map_or("/", |p| p.as_str()));
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let home = self.is_home(uri);
        for (name, value) in self.headers.iter().filter(|_| home) {
            request = request.header(name, value);
        }
        let authority = uri.authority().map_or(host, |a| a.as_str());
        let request = request
            .header(HOST, HeaderValue::from_str(authority)?)
            .header(http::header::USER_AGENT, "trireme")
            .body(Full::new(body))?;
        let work = async {
            let stream = outgoing::connect(host, port).await;
            let stream = stream.map_err(|e| format!("connect to {host} port {port}: {e}"))?;
            if tls {
                let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())?;
                let tls = if home { &self.home_tls } else { &self.tls };
                let stream = TlsConnector::from(tls.clone()).connect(name, stream).await;
                return handshake(TokioIo::new(stream.map_err(tls_failed)?)).await;
            }
            handshake(TokioIo::new(stream)).await
        };
        let late = |_| format!("{host}:{port} does not answer in time");
        let (mut sender, connection) =
            tokio::time::timeout(self.limits.connect, work).await.map_err(late)??;
        let response = tokio::time::timeout(self.limits.answer, sender.send_request(request))
            .await
            .map_err(late)??;
        Ok(Answer {
            response,
            uri: uri.clone(),
            _connection: connection,
            limit: self.limits.answer,
        })
    }
}

type Sender = hyper::client::conn::http1::SendRequest<Full<Bytes>>;

/// The task that moves the connection's bytes is ended by dropping the answer.
async fn handshake<T>(io: TokioIo<T>) -> Result<(Sender, Connection), Cause>
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = hyper::client::conn::http1::handshake(io).await?;
    let task = tokio::spawn(async move {
        if let Err(e) = connection.await {
            tracing::debug!("registry connection: {e}");
        }
    });
    Ok((sender, Connection(task.abort_handle())))
}

/// A certificate that is not believed is no sign that there is no TLS.
fn tls_failed(error: io::Error) -> Cause {
    let inner = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
    let is_other = match inner {
        Some(error) => matches!(error, rustls::Error::InvalidMessage(_)),
        None => {
            [io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset].contains(&error.kind())
        }
    };
    if is_other { NotTls(error).into() } else { error.into() }
}

fn trust(tls: &Tls) -> Result<Trust, Cause> {
    if tls.skip_verify {
        return Ok(Trust::Anybody);
    }
    let mut roots = outgoing::machine_roots();
    for path in &tls.authorities {
        let failed = |e: &dyn std::fmt::Display| format!("authority {}: {e}", path.display());
        let mut found = 0;
        for certificate in CertificateDer::pem_file_iter(path).map_err(|e| failed(&e))? {
            roots.add(certificate.map_err(|e| failed(&e))?).map_err(|e| failed(&e))?;
            found += 1;
        }
        if found == 0 {
            return Err(failed(&"there is no certificate in it").into());
        }
    }
    Ok(Trust::Authorities(roots))
}

fn identity(pair: &KeyPair) -> Result<Identity, Cause> {
    let failed = |e: &dyn std::fmt::Display| {
        format!("client certificate {}: {e}", pair.certificate.display())
    };
    let chain = CertificateDer::pem_file_iter(&pair.certificate).map_err(|e| failed(&e))?;
    let chain: Vec<_> = chain.collect::<Result<_, _>>().map_err(|e| failed(&e))?;
    if chain.is_empty() {
        return Err(failed(&"there is no certificate in it").into());
    }
    let key = PrivateKeyDer::from_pem_file(&pair.key);
    let key = key.map_err(|e| format!("client key {}: {e}", pair.key.display()))?;
    Ok((chain, key))
}

pub(super) fn resolve(base: &Uri, to: &str) -> Result<Uri, Cause> {
    if to.starts_with("http://") || to.starts_with("https://") {
        return Ok(to.parse()?);
    }
    if !to.starts_with('/') {
        return Err(format!("redirect to {to:?}").into());
    }
    let mut parts = base.clone().into_parts();
    parts.path_and_query = Some(to.parse()?);
    Ok(Uri::from_parts(parts)?)
}
