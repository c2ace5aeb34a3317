//! Documents that are read whole, now and then: descriptions and keys of issuers, manifests.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use rustls::pki_types::ServerName;

use crate::{Connector, Trust, client_config, pool_builder};

/// Gets a document over HTTPS, within `limit` bytes and `deadline`. The error says which part failed;
/// an answer that is no success is one.
pub async fn document(
    url: &str,
    trust: Trust,
    limit: usize,
    deadline: Duration,
) -> Result<Bytes, String> {
    let read = tokio::time::timeout(deadline, read(url, trust, limit)).await;
    let read = read.unwrap_or_else(|_| Err("context deadline exceeded".to_owned()));
    read.map_err(|why| format!("Get {url:?}: {why}"))
}

async fn read(url: &str, trust: Trust, limit: usize) -> Result<Bytes, String> {
    let uri: Uri = url.parse().map_err(|e| format!("{e}"))?;
    let host = uri.host().ok_or("no host in request URL")?.trim_matches(['[', ']']).to_owned();
    if uri.scheme_str() != Some("https") {
        return Err("only https is read".into());
    }
    let name = ServerName::try_from(host.clone()).map_err(|e| e.to_string())?;
    let tls = client_config(trust, None).map_err(|e| e.to_string())?;
    let connector =
        Connector::new((&host, uri.port_u16().unwrap_or(443)), name, Arc::new(tls), None);
    let client = pool_builder().build::<_, Full<Bytes>>(connector);
    let request = Request::get(uri).header(header::ACCEPT, "application/json, */*");
    let request = request.header(header::USER_AGENT, "trireme/v1.36.2").body(Full::default());
    let response =
        client.request(request.map_err(|e| e.to_string())?).await.map_err(|e| deepest(&e))?;
    let status = response.status();
    let body =
        Limited::new(response.into_body(), limit).collect().await.map_err(|e| e.to_string())?;
    match status.is_success() {
        true => Ok(body.to_bytes()),
        false => Err(status.to_string()),
    }
}

/// The innermost reason.
fn deepest(error: &(dyn std::error::Error + 'static)) -> String {
    error.source().map_or_else(|| error.to_string(), deepest)
}
