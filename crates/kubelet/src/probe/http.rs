//! HTTP and HTTPS requests to pods; certificates are not verified, as the API says of probes.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{address, port};
use crate::kubelet::Shared;

/// Longest answer looked at.
const BODY_MAX: usize = 10 << 10;

/// Where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) tls: bool,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
}

impl Target {
    pub(crate) fn of(get: &HTTPGetAction, c: &Container, ip: &str) -> Result<Target, String> {
        let host = get.host.as_deref().filter(|h| !h.is_empty()).unwrap_or(ip);
        let path = get.path.as_deref().filter(|p| !p.is_empty()).unwrap_or("/");
        let headers = get.http_headers.iter().flatten();
        Ok(Target {
            host: host.to_owned(),
            port: port(&get.port, c)?,
            tls: get.scheme.as_deref() == Some("HTTPS"),
            path: if path.starts_with('/') { path.to_owned() } else { format!("/{path}") },
            headers: headers.map(|h| (h.name.clone(), h.value.clone())).collect(),
        })
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
}

/// One GET; redirects are answers like any other.
pub(crate) async fn get(
    shared: &Shared,
    target: &Target,
    extra: &[(&str, &str)],
) -> Result<Answer, String> {
    let to = address(&target.host, target.port)?;
    let url = format!("{}://{to}{}", if target.tls { "https" } else { "http" }, target.path);
    let failed = |e: &dyn std::fmt::Display| format!("Get \"{url}\": {e}");
    let stream = shared.dialer.tcp(to).await;
    let stream = stream.map_err(|e| failed(&format!("dial tcp {to}: connect: {e}")))?;
    let mut request = http::Request::get(&target.path);
    let named = |name: &str| target.headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
    if !named("host") {
        request = request.header("host", to.to_string());
    }
    for (name, value) in extra.iter().filter(|(n, _)| !named(n)) {
        request = request.header(*name, *value);
    }
    for (name, value) in &target.headers {
        request = request.header(name.as_str(), value.as_str());
    }
    let request = request.header("connection", "close").body(Empty::<Bytes>::new());
    let request = request.map_err(|e| failed(&e))?;
    let answer = match target.tls {
        false => send(stream, request).await,
        true => {
            let config = outgoing::client_config(outgoing::Trust::Anybody, None);
            let config = config.map_err(|e| failed(&e))?;
            let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
            let tls = connector.connect(ServerName::from(to.ip()), stream).await;
            send(tls.map_err(|e| failed(&e))?, request).await
        }
    };
    answer.map_err(|e| failed(&e))
}

async fn send<S>(stream: S, request: http::Request<Empty<Bytes>>) -> Result<Answer, hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        // Read, so that the server does not see a broken connection; its length does not matter.
        let _read = Limited::new(response.into_body(), BODY_MAX).collect().await;
        Ok(Answer { status })
    };
    // The connection is driven here and ends with the exchange: no task is left behind.
    tokio::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        ended = connection => match ended {
            Ok(()) => exchange.await,
            Err(error) => Err(error),
        },
    }
}
