//! The HTTP side of an upgrade: is it one, which subprotocol is spoken, and what is answered.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

/// Appended to the client's key to prove that the server speaks WebSocket (RFC 6455 §1.3).
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Why a request is not upgraded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub code: u16,
    pub message: String,
}

impl Refusal {
    pub fn new(code: u16, message: impl Into<String>) -> Refusal {
        Refusal { code, message: message.into() }
    }
}

fn words<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter().filter_map(|v| v.to_str().ok());
    values.flat_map(|v| v.split(',')).map(str::trim).filter(|word| !word.is_empty())
}

fn has(headers: &HeaderMap, name: &str, word: &str) -> bool {
    words(headers, name).any(|v| v.eq_ignore_ascii_case(word))
}

/// True if the request asks to upgrade its connection to any protocol.
pub fn is_upgrade(headers: &HeaderMap) -> bool {
    has(headers, "connection", "upgrade") && headers.contains_key(header::UPGRADE)
}

/// True if the request asks to upgrade its connection to WebSocket.
pub fn is_websocket(headers: &HeaderMap) -> bool {
    has(headers, "connection", "upgrade") && has(headers, "upgrade", "websocket")
}

/// Removes the headers that belong to the client's WebSocket connection, before the request goes on
/// as a plain one.
pub(crate) fn remove_websocket_headers(headers: &mut HeaderMap) {
    for name in [
        "connection",
        "upgrade",
        "sec-websocket-key",
        "sec-websocket-version",
        "sec-websocket-protocol",
        "sec-websocket-extensions",
    ] {
        headers.remove(name);
    }
}

/// The first of the client's subprotocols that is supported. A client that names none gets `""`.
pub(crate) fn choose_websocket<'a>(headers: &HeaderMap, supported: &[&'a str]) -> Option<&'a str> {
    let mut asked = words(headers, "sec-websocket-protocol").peekable();
    if asked.peek().is_none() {
        return Some("");
    }
    asked.find_map(|p| supported.iter().find(|s| **s == p).copied())
}

/// The subprotocols that the client names.
pub(crate) fn websocket_protocols(headers: &HeaderMap) -> Vec<&str> {
    words(headers, "sec-websocket-protocol").collect()
}

/// The answer to a WebSocket handshake; an empty `protocol` is not named.
pub(crate) fn accept_websocket(
    headers: &HeaderMap,
    protocol: &str,
) -> Result<Response<()>, Refusal> {
    let key = headers.get("sec-websocket-key").and_then(|v| v.to_str().ok());
    let key = key.ok_or_else(|| Refusal::new(400, "missing Sec-WebSocket-Key"))?;
    let mut builder = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, HeaderValue::from_static("Upgrade"))
        .header(header::UPGRADE, HeaderValue::from_static("websocket"))
        .header(header::SEC_WEBSOCKET_ACCEPT, proof(key));
    if !protocol.is_empty() {
        builder = builder.header(header::SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    builder.body(()).map_err(|e| Refusal::new(500, e.to_string()))
}

fn proof(key: &str) -> String {
    let text = format!("{key}{GUID}");
    STANDARD.encode(ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()))
}

/// The answer to an upgrade to SPDY, and the subprotocol spoken on it.
pub(crate) fn accept_spdy(
    headers: &HeaderMap,
    supported: &[&'static str],
) -> Result<(Response<()>, &'static str), Refusal> {
    if !has(headers, "connection", "upgrade") || !has(headers, "upgrade", "SPDY/3.1") {
        let text = "unable to upgrade: missing upgrade headers in request";
        return Err(Refusal::new(400, text));
    }
    let mut asked = words(headers, "x-stream-protocol-version").peekable();
    let chosen = match asked.peek() {
        None => supported.last().copied(),
        Some(_) => asked.find_map(|v| supported.iter().find(|s| **s == v).copied()),
    };
    let refused = || Refusal::new(403, "unable to upgrade: unable to negotiate protocol");
    let chosen = chosen.ok_or_else(refused)?;
    let response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header("connection", "Upgrade")
        .header("upgrade", "SPDY/3.1")
        .header("x-stream-protocol-version", chosen)
        .body(());
    response.map(|r| (r, chosen)).map_err(|e| Refusal::new(500, e.to_string()))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn headers(protocols: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("connection", HeaderValue::from_static("keep-alive, Upgrade"));
        headers.insert("upgrade", HeaderValue::from_static("websocket"));
        let key = HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ==");
        headers.insert("sec-websocket-key", key);
        for protocol in protocols {
            let value = HeaderValue::from_str(protocol).expect("a value");
            headers.append("sec-websocket-protocol", value);
        }
        headers
    }

    #[test]
    fn the_first_supported_subprotocol_is_spoken() {
        let supported = ["binary.k8s.io", "base64.binary.k8s.io"];
        let asked = headers(&["v9.other", "base64.binary.k8s.io, binary.k8s.io"]);
        let chosen = choose_websocket(&asked, &supported).expect("supported");
        assert_eq!(chosen, "base64.binary.k8s.io");
        let response = accept_websocket(&asked, chosen).expect("accepted");
        assert_eq!(response.headers()["sec-websocket-protocol"], chosen);
        // The example of RFC 6455 §1.3.
        assert_eq!(response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(choose_websocket(&headers(&[]), &supported), Some(""));
        assert_eq!(choose_websocket(&headers(&["v9.other"]), &supported), None);
        let mut plain = headers(&["binary.k8s.io"]);
        assert!(is_websocket(&plain));
        remove_websocket_headers(&mut plain);
        assert!(plain.is_empty());
    }

    #[test]
    fn an_upgrade_without_a_key_or_to_another_protocol_is_refused() {
        let mut keyless = headers(&[]);
        keyless.remove("sec-websocket-key");
        assert_eq!(accept_websocket(&keyless, "").expect_err("no key").code, 400);
        assert_eq!(accept_spdy(&headers(&[]), &["a"]).expect_err("not SPDY").code, 400);
        let mut spdy = headers(&[]);
        spdy.insert("upgrade", HeaderValue::from_static("SPDY/3.1"));
        spdy.insert("x-stream-protocol-version", HeaderValue::from_static("b"));
        assert_eq!(accept_spdy(&spdy, &["a"]).expect_err("unknown").code, 403);
        assert_eq!(accept_spdy(&spdy, &["a", "b"]).expect("known").1, "b");
    }
}
