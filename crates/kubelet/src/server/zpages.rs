//! `/statusz` and `/flagz`: what the agent tells of its own process.

use http::header::{ACCEPT, CONTENT_TYPE, WARNING};
use http::{HeaderMap, HeaderValue};
use telemetry::zpages::{self, Page};

use super::{Response, answer};
use crate::config::KubeletConfig;

/// Versions of the binary and of the API that it speaks.
const VERSIONS: (&str, &str) = ("1.36.2", "1.36");
/// What the node API has beside `/statusz`.
const PATHS: [&str; 13] = [
    "/attach",
    "/checkpoint",
    "/configz",
    "/containerLogs",
    "/exec",
    "/flagz",
    "/healthz",
    "/logs",
    "/metrics",
    "/pods",
    "/portForward",
    "/runningpods",
    "/stats",
];

fn accept(headers: &HeaderMap) -> &str {
    headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("")
}

pub(super) fn statusz(config: &KubeletConfig, headers: &HeaderMap) -> Response {
    served(zpages::statusz(&config.component, accept(headers), PATHS, VERSIONS))
}

pub(super) fn flagz(config: &KubeletConfig, headers: &HeaderMap) -> Response {
    served(zpages::flagz(&config.component, accept(headers)))
}

fn served(page: Page) -> Response {
    let mut response = answer(page.code, page.body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(page.content_type));
    if let Some(warning) = page.warning.and_then(|text| text.parse().ok()) {
        headers.insert(WARNING, warning);
    }
    response
}
