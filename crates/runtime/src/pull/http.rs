//! The little of an HTTP client that pulling needs: GET over plain TCP or TLS, one connection each.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, HOST, LOCATION};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;

use super::Cause;
use crate::config::PullLimits;

/// Redirects in a row: blobs are mostly one away.
const MAX_REDIRECTS: usize = 5;
/// Where distributions keep their authorities; the first that is there counts.
const AUTHORITIES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

pub(super) struct Http {
    tls: Arc<ClientConfig>,
    limits: PullLimits,
}

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
    pub(super) fn new(limits: PullLimits) -> Http {
        let mut roots = RootCertStore::empty();
        let file = AUTHORITIES.iter().find(|p| std::path::Path::new(p).exists());
        let certificates = file.and_then(|f| CertificateDer::pem_file_iter(f).ok());
        for certificate in certificates.into_iter().flatten().flatten() {
            // One that rustls does not take is one that it would not trust either.
            let _ = roots.add(certificate);
        }
        if roots.is_empty() {
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring has the default versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Http { tls: Arc::new(tls), limits }
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
        let authority = uri.authority().map_or(host, |a| a.as_str());
        let request = request
            .header(HOST, HeaderValue::from_str(authority)?)
            .header(http::header::USER_AGENT, "trireme")
            .body(Full::new(body))?;
        let work = async {
            let stream = connect(host, port).await?;
            if tls {
                let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())?;
                let stream = TlsConnector::from(self.tls.clone()).connect(name, stream).await?;
                return handshake(TokioIo::new(stream)).await;
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

async fn connect(host: &str, port: u16) -> Result<TcpStream, Cause> {
    let mut last: Cause = format!("{host} has no address").into();
    for ip in addresses(host).await? {
        match TcpStream::connect(SocketAddr::new(ip, port)).await {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(e) => last = format!("connect to {host} ({ip}) port {port}: {e}").into(),
        }
    }
    Err(last)
}

/// Never by libc: a static program cannot load what its resolver needs.
async fn addresses(host: &str) -> Result<Vec<IpAddr>, Cause> {
    if let Ok(ip) = host.trim_matches(['[', ']']).parse() {
        return Ok(vec![ip]);
    }
    if host == "localhost" {
        return Ok(vec![
            std::net::Ipv4Addr::LOCALHOST.into(),
            std::net::Ipv6Addr::LOCALHOST.into(),
        ]);
    }
    let resolver = hickory_resolver::TokioResolver::builder_tokio()?.build()?;
    Ok(resolver.lookup_ip(host).await?.iter().collect())
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
