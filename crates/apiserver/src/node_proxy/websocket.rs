//! WebSocket (RFC 6455) for logs: handshake, and an answer's bytes as the server's messages.

use std::io;

use api::Status;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body_util::BodyExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::respond::{self, Body};

const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;

/// How bytes are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Binary,
    Base64,
}

/// Subprotocols; a client that names none gets the first.
const PROTOCOLS: [(&str, Encoding); 3] = [
    ("", Encoding::Binary),
    ("binary.k8s.io", Encoding::Binary),
    ("base64.binary.k8s.io", Encoding::Base64),
];

fn words<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter().filter_map(|v| v.to_str().ok());
    values.flat_map(|v| v.split(',')).map(str::trim)
}

pub(crate) fn is_upgrade(headers: &HeaderMap) -> bool {
    let has = |name: &str, word: &str| words(headers, name).any(|v| v.eq_ignore_ascii_case(word));
    has("connection", "upgrade") && has("upgrade", "websocket")
}

/// What belongs to this connection and not to the one beyond.
pub(super) fn remove_headers(headers: &mut HeaderMap) {
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

/// The answer to a handshake.
pub(super) fn accept(headers: &HeaderMap) -> Result<(Response<Body>, Encoding), Status> {
    let mut asked = words(headers, "sec-websocket-protocol").peekable();
    let known = |name: &str| PROTOCOLS.into_iter().find(|(known, _)| *known == name);
    let chosen = match asked.peek() {
        None => Some(PROTOCOLS[0]),
        Some(_) => asked.find_map(known),
    };
    let (protocol, encoding) = chosen
        .ok_or_else(|| Status::bad_request("no supported WebSocket protocol was asked for"))?;
    let key = headers.get("sec-websocket-key").and_then(|v| v.to_str().ok());
    let key = key.ok_or_else(|| Status::bad_request("missing Sec-WebSocket-Key"))?;
    let mut response = Response::new(respond::full(""));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let all = response.headers_mut();
    all.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    all.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    let proof = HeaderValue::from_str(&proof(key)).map_err(|e| Status::internal(e.to_string()))?;
    all.insert(header::SEC_WEBSOCKET_ACCEPT, proof);
    if !protocol.is_empty() {
        all.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    }
    Ok((response, encoding))
}

/// What shows that the handshake was understood (RFC 6455 §4.2.2).
fn proof(key: &str) -> String {
    let text = format!("{key}{GUID}");
    STANDARD.encode(ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()))
}

/// Sends `body` as messages until it ends or the client goes. The client has nothing to say: what
/// it sends is passed over, and its end is the end.
pub(super) async fn send<C>(connection: C, body: Body, encoding: Encoding) -> io::Result<()>
where
    C: AsyncRead + AsyncWrite + Send,
{
    let (mut reader, writer) = tokio::io::split(connection);
    let gone = async {
        let mut scrap = [0; 512];
        while reader.read(&mut scrap).await? > 0 {}
        Ok(())
    };
    tokio::select! {
        sent = messages(writer, body, encoding) => sent,
        gone = gone => gone,
    }
}

async fn messages<W: AsyncWrite + Unpin>(
    mut writer: W,
    mut body: Body,
    encoding: Encoding,
) -> io::Result<()> {
    // An empty message tells that the stream stands, before there is anything to send.
    writer.write_all(&message(encoding, b"")).await?;
    writer.flush().await?;
    while let Some(Ok(frame)) = body.frame().await {
        let data: Bytes = frame.into_data().unwrap_or_default();
        if !data.is_empty() {
            writer.write_all(&message(encoding, &data)).await?;
            writer.flush().await?;
        }
    }
    // 1000: normal closure.
    writer.write_all(&frame(CLOSE, &1000u16.to_be_bytes())).await?;
    writer.shutdown().await
}

fn message(encoding: Encoding, data: &[u8]) -> Vec<u8> {
    match encoding {
        Encoding::Binary => frame(BINARY, data),
        Encoding::Base64 => frame(TEXT, STANDARD.encode(data).as_bytes()),
    }
}

/// A whole, unmasked message, as servers send them (RFC 6455 §5.2).
fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0x80 | opcode];
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(short @ 0..126), _) => out.push(short),
        (_, Ok(medium)) => {
            out.push(126);
            out.extend(medium.to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend((payload.len() as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(protocols: &[&str]) -> HeaderMap {
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
    fn the_first_known_protocol_is_spoken() {
        let (response, encoding) =
            accept(&headers(&["v9.other", "base64.binary.k8s.io, binary.k8s.io"])).expect("known");
        assert_eq!(encoding, Encoding::Base64);
        assert_eq!(response.headers()["sec-websocket-protocol"], "base64.binary.k8s.io");
        // The example of RFC 6455 §1.3.
        assert_eq!(response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let (response, encoding) = accept(&headers(&[])).expect("none is fine");
        assert_eq!(encoding, Encoding::Binary);
        assert!(!response.headers().contains_key("sec-websocket-protocol"));
        assert!(accept(&headers(&["v9.other"])).is_err());
        let mut plain = headers(&["binary.k8s.io"]);
        assert!(is_upgrade(&plain));
        remove_headers(&mut plain);
        assert!(plain.is_empty());
    }

    async fn sent(text: &'static str, encoding: Encoding) -> Vec<u8> {
        let (client, server) = tokio::io::duplex(1 << 20);
        let sending = send(server, respond::full(text), encoding);
        let reading = async {
            let (mut reader, _writer) = tokio::io::split(client);
            let mut all = Vec::new();
            reader.read_to_end(&mut all).await.expect("readable");
            all
        };
        let (done, all) = tokio::join!(sending, reading);
        done.expect("sent");
        all
    }

    #[tokio::test]
    async fn bytes_go_as_messages_and_then_the_end() {
        let end = frame(CLOSE, &[0x03, 0xe8]);
        let all = sent("hi\n", Encoding::Binary).await;
        assert_eq!(all, [&[0x82, 0, 0x82, 3][..], b"hi\n", &end].concat());
        let all = sent("hi\n", Encoding::Base64).await;
        assert_eq!(all, [&[0x81, 0, 0x81, 4][..], b"aGkK", &end].concat());
    }

    #[tokio::test]
    async fn the_client_may_go_at_any_time() {
        let (client, server) = tokio::io::duplex(64);
        drop(client);
        let endless = respond::stream(http_body_util::StreamBody::new(futures::stream::pending::<
            Result<hyper::body::Frame<Bytes>, std::convert::Infallible>,
        >()));
        let _either = send(server, endless, Encoding::Binary).await;
    }

    #[test]
    fn long_payloads_have_long_lengths() {
        assert_eq!(frame(BINARY, &[0; 200])[..4], [0x82, 126, 0, 200]);
        assert_eq!(frame(BINARY, &[0; 70_000])[..10], [0x82, 127, 0, 0, 0, 0, 0, 1, 0x11, 0x70]);
    }
}
