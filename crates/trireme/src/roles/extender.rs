//! How the scheduler's requests reach an extender: HTTP or HTTPS, with a deadline and a limit.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Collected, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioIo;
use outgoing::{Connector, Trust};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use scheduler::{ExtenderConfig, ExtenderTls, ExtenderTransport};

/// How long an extender may take when its configuration does not say (upstream's).
const TIMEOUT: Duration = Duration::from_secs(5);
/// Longest answer: an extender may send all nodes back.
const ANSWER_MAX: usize = 64 << 20;

type Answer<'a> = std::pin::Pin<Box<dyn Future<Output = Result<Vec<u8>, String>> + Send + 'a>>;

#[derive(Debug)]
pub(crate) struct HttpExtender {
    prefix: String,
    timeout: Duration,
    way: Way,
}

#[derive(Debug)]
enum Way {
    /// A connection a request.
    Plain {
        host: String,
        port: u16,
    },
    Tls(Box<Client<Connector, Full<Bytes>>>),
}

impl HttpExtender {
    pub(crate) fn new(config: &ExtenderConfig) -> Result<HttpExtender> {
        let prefix = config.url_prefix.trim_end_matches('/').to_owned();
        let uri: Uri = prefix.parse().with_context(|| format!("urlPrefix {prefix:?}"))?;
        let host = uri.host().with_context(|| format!("urlPrefix {prefix:?} has no host"))?;
        let host = host.trim_matches(['[', ']']).to_owned();
        let way = match uri.scheme_str() {
            Some("https") => {
                let port = uri.port_u16().unwrap_or(443);
                let tls = config.tls_config.clone().unwrap_or_default();
                Way::Tls(Box::new(pool(&tls, config.enable_https, &host, port)?))
            }
            Some("http") => Way::Plain { host, port: uri.port_u16().unwrap_or(80) },
            _ => bail!("urlPrefix {prefix:?} is neither http nor https"),
        };
        let given = Some(config.http_timeout).filter(|t| !t.is_zero());
        Ok(HttpExtender { prefix, timeout: given.unwrap_or(TIMEOUT), way })
    }

    async fn ask(&self, verb: &str, body: Vec<u8>) -> Result<Vec<u8>> {
        let url = format!("{}/{verb}", self.prefix);
        let uri: Uri = url.parse()?;
        let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
        let request = Request::post(uri)
            .header(http::header::HOST, authority)
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))?;
        let (status, body) = match &self.way {
            Way::Tls(pool) => {
                let answer = pool.request(request).await?;
                let status = answer.status();
                let body = Limited::new(answer.into_body(), ANSWER_MAX).collect().await;
                (status, whole(body)?)
            }
            Way::Plain { host, port } => plain(host, *port, request).await?,
        };
        if status != StatusCode::OK {
            bail!("failed {verb} with extender at URL {url}, code {}", status.as_u16());
        }
        Ok(body.to_vec())
    }
}

impl ExtenderTransport for HttpExtender {
    fn post(&self, verb: &str, body: Vec<u8>) -> Answer<'_> {
        let verb = verb.to_owned();
        Box::pin(async move {
            let asked = tokio::time::timeout(self.timeout, self.ask(&verb, body)).await;
            let answer = asked.map_err(|_| {
                format!("Post \"{}/{verb}\": context deadline exceeded", self.prefix)
            })?;
            answer.map_err(|e| format!("{e:#}"))
        })
    }
}

fn whole(
    collected: Result<Collected<Bytes>, Box<dyn std::error::Error + Send + Sync>>,
) -> Result<Bytes> {
    let body = collected.map_err(|e| anyhow::anyhow!("read the extender's answer: {e}"))?;
    Ok(body.to_bytes())
}

async fn plain(
    host: &str,
    port: u16,
    mut request: Request<Full<Bytes>>,
) -> Result<(StatusCode, Bytes)> {
    let tcp = outgoing::connect(host, port).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tcp)).await?;
    // A server wants the path alone.
    let path = request.uri().path_and_query().map_or("/", |p| p.as_str()).to_owned();
    *request.uri_mut() = path.parse()?;
    let mut answer = std::pin::pin!(sender.send_request(request));
    let mut connection = std::pin::pin!(connection);
    // The connection is driven until the answer's head is there, and then beside its body.
    let head = tokio::select! {
        head = &mut answer => head?,
        ended = &mut connection => {
            ended?;
            answer.await?
        }
    };
    let (status, body) = (head.status(), head.into_body());
    let mut collected = std::pin::pin!(Limited::new(body, ANSWER_MAX).collect());
    let body = tokio::select! {
        body = &mut collected => body,
        ended = &mut connection => {
            ended?;
            collected.await
        }
    };
    Ok((status, whole(body)?))
}

fn pool(
    tls: &ExtenderTls,
    enable_https: bool,
    host: &str,
    port: u16,
) -> Result<Client<Connector, Full<Bytes>>> {
    let ca = pem(&tls.ca_data, &tls.ca_file).context("caData or caFile")?;
    let cert = pem(&tls.cert_data, &tls.cert_file).context("certData or certFile")?;
    let key = pem(&tls.key_data, &tls.key_file).context("keyData or keyFile")?;
    // As upstream: HTTPS that is asked for without authorities verifies nobody.
    let trust = match &ca {
        _ if tls.insecure => Trust::Anybody,
        None if enable_https => Trust::Anybody,
        None => Trust::Authorities(outgoing::machine_roots()),
        Some(ca) => {
            let mut roots = RootCertStore::empty();
            for cert in CertificateDer::pem_slice_iter(ca) {
                roots.add(cert.context("caData or caFile")?)?;
            }
            Trust::Authorities(roots)
        }
    };
    let identity = match (&cert, &key) {
        (Some(cert), Some(key)) => {
            let chain = CertificateDer::pem_slice_iter(cert).collect::<Result<_, _>>()?;
            Some((chain, PrivateKeyDer::from_pem_slice(key)?))
        }
        (None, None) => None,
        _ => bail!("a certificate and its key go together"),
    };
    let mut client = outgoing::client_config(trust, identity)?;
    client.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let name = if tls.server_name.is_empty() { host } else { tls.server_name.as_str() };
    let name = ServerName::try_from(name.to_owned())?;
    let connector = Connector::new((host, port), name, Arc::new(client), None);
    Ok(outgoing::pool_builder().build(connector))
}

/// PEM given as base64, or in a file.
fn pem(data: &str, file: &str) -> Result<Option<Vec<u8>>> {
    if !data.is_empty() {
        return Ok(Some(STANDARD.decode(data)?));
    }
    if file.is_empty() {
        return Ok(None);
    }
    Ok(Some(std::fs::read(file).with_context(|| file.to_owned())?))
}
