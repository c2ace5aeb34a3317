//! The kubeconfig that a component of its own is given.

use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, Result};
use client::{HttpsConfig, Kubeconfig};

/// The connection that the file's current context describes.
pub(crate) fn load(path: &Path) -> Result<HttpsConfig> {
    Ok(Kubeconfig::load(path)?.config(None)?)
}

/// The IP address in `https://address[:port]`; a name has several, and none is chosen here.
pub(crate) fn server_ip(server: &str) -> Result<IpAddr> {
    let uri: http::Uri = server.parse().with_context(|| format!("server {server:?}"))?;
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    host.parse().ok().with_context(|| {
        format!(
            "server {server:?} is given by name, so the node's address is not known: give --node-ip"
        )
    })
}
