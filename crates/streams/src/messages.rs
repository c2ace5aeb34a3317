//! One direction only: logs and watches over WebSocket.
//!
//! The client has nothing to say: its messages are discarded, and its Close ends the session.

use bytes::Bytes;
use futures::future::FutureExt;
use futures::stream::{Stream, StreamExt};
use http::HeaderMap;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use crate::handshake::{
    accept_websocket, choose_websocket, remove_websocket_headers, websocket_protocols,
};
use crate::websocket::{self, Encoding};
use crate::{Outgoing, QUEUE, Refusal, Upgrade};

/// Subprotocols of a byte stream (upstream's `wsstream.Reader`); a client that names none gets binary
/// messages.
const READER_PROTOCOLS: &[&str] = &["binary.k8s.io", "base64.binary.k8s.io"];

/// How one message is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    Text,
    Binary,
}

/// A WebSocket handshake that is answered later, when there is something to send.
pub struct Handshake {
    headers: HeaderMap,
    upgrade: hyper::upgrade::OnUpgrade,
}

impl Handshake {
    /// Takes the handshake out of the request, which can then go on as a plain one.
    pub fn of<B>(request: &mut http::Request<B>) -> Handshake {
        let upgrade = hyper::upgrade::on(&mut *request);
        let headers = request.headers().clone();
        remove_websocket_headers(request.headers_mut());
        Handshake { headers, upgrade }
    }

    /// A byte stream (logs), after an empty message that tells that the stream is open.
    pub fn bytes(
        self,
        stream: impl Stream<Item = Bytes> + Send + 'static,
    ) -> Result<Upgrade, Refusal> {
        let protocol = choose_websocket(&self.headers, READER_PROTOCOLS);
        let protocol =
            protocol.ok_or_else(|| Refusal::new(400, "no supported WebSocket subprotocol"))?;
        let response = accept_websocket(&self.headers, protocol)?;
        let encoding = match protocol {
            "base64.binary.k8s.io" => Encoding::RawBase64,
            _ => Encoding::Raw,
        };
        let first = futures::stream::once(async { Bytes::new() });
        let rest = stream.filter(|data| futures::future::ready(!data.is_empty()));
        Ok(self.session(response, encoding, first.chain(rest)))
    }

    /// One message an item (watches). Any one subprotocol is accepted and named in the answer, as
    /// upstream's handler without a handshake of its own does; it wants an `Origin` with a URL.
    pub fn events(
        self,
        framing: Framing,
        stream: impl Stream<Item = Bytes> + Send + 'static,
    ) -> Result<Upgrade, Refusal> {
        let origin = self.headers.get("origin").and_then(|v| v.to_str().ok());
        let is_url = |origin: &&str| {
            let has_scheme = origin.parse::<http::Uri>().is_ok_and(|uri| uri.scheme().is_some());
            has_scheme || origin.starts_with('/')
        };
        if origin.filter(is_url).is_none() {
            return Err(Refusal::new(403, "a WebSocket request must have an Origin"));
        }
        let protocol = match websocket_protocols(&self.headers).as_slice() {
            [] => "",
            [only] => only,
            _ => return Err(Refusal::new(400, "more than one WebSocket subprotocol")),
        };
        let response = accept_websocket(&self.headers, protocol)?;
        let encoding = match framing {
            Framing::Text => Encoding::Text,
            Framing::Binary => Encoding::Raw,
        };
        Ok(self.session(response, encoding, stream))
    }

    fn session(
        self,
        response: http::Response<()>,
        encoding: Encoding,
        stream: impl Stream<Item = Bytes> + Send + 'static,
    ) -> Upgrade {
        let session = async move {
            match self.upgrade.await {
                Ok(io) => send(TokioIo::new(io), encoding, stream).await,
                Err(error) => tracing::debug!(%error, "upgrade failed"),
            }
        };
        Upgrade { response, session: session.boxed() }
    }
}

/// Sends every item as a message, until they end or the client goes.
async fn send<C>(connection: C, encoding: Encoding, stream: impl Stream<Item = Bytes> + Send)
where
    C: AsyncRead + AsyncWrite + Send,
{
    let (messages, received) = mpsc::channel(1);
    // The client's messages are discarded.
    drop(received);
    let (out, outgoing) = mpsc::channel(QUEUE);
    let items = async move {
        futures::pin_mut!(stream);
        loop {
            let item = tokio::select! {
                item = stream.next() => item,
                () = out.closed() => None,
            };
            let Some(data) = item else { return };
            if out.send(Outgoing { stream: 0, data: Some(data) }).await.is_err() {
                return;
            }
        }
    };
    let run = websocket::run(connection, encoding, messages, outgoing);
    let (ran, ()) = futures::join!(run, items.boxed());
    if let Err(error) = ran {
        tracing::debug!(%error, "messages over WebSocket ended");
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::handshake::tests::headers;
    use crate::websocket::masked;

    async fn sent(encoding: Encoding, items: &[&'static str]) -> Vec<u8> {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        let items: Vec<Bytes> = items.iter().map(|i| Bytes::from_static(i.as_bytes())).collect();
        let reading = async {
            let mut all = Vec::new();
            client.read_to_end(&mut all).await.expect("readable");
            all
        };
        futures::join!(send(server, encoding, futures::stream::iter(items)), reading).1
    }

    #[tokio::test(start_paused = true)]
    async fn items_go_as_messages_and_then_close() {
        let end = [0x88, 2, 0x03, 0xe8];
        let all = sent(Encoding::Raw, &["", "hi\n"]).await;
        assert_eq!(all, [&[0x82, 0, 0x82, 3][..], b"hi\n", &end].concat());
        let all = sent(Encoding::RawBase64, &["", "hi\n"]).await;
        assert_eq!(all, [&[0x81, 0, 0x81, 4][..], b"aGkK", &end].concat());
        let all = sent(Encoding::Text, &["{}"]).await;
        assert_eq!(all, [&[0x81, 2][..], b"{}", &end].concat());
    }

    #[tokio::test(start_paused = true)]
    async fn the_clients_close_is_answered() {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        client.write_all(&masked(1, b"ignored")).await.expect("sent");
        client.write_all(&masked(8, &1000u16.to_be_bytes())).await.expect("sent");
        let endless = futures::stream::pending();
        let reading = async {
            let mut all = Vec::new();
            client.read_to_end(&mut all).await.expect("readable");
            all
        };
        let ((), all) = futures::join!(send(server, Encoding::Text, endless), reading);
        assert_eq!(all, [0x88, 2, 0x03, 0xe8]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_is_gone_ends_the_session() {
        let (client, server) = tokio::io::duplex(64);
        drop(client);
        send(server, Encoding::Text, futures::stream::pending()).await;
    }

    #[test]
    fn a_watch_needs_an_origin_and_at_most_one_subprotocol() {
        let request = |protocols: &[&str], origin: Option<&'static str>| {
            let mut request = http::Request::new(());
            *request.headers_mut() = headers(protocols);
            if let Some(origin) = origin {
                let value = http::HeaderValue::from_static(origin);
                request.headers_mut().insert("origin", value);
            }
            Handshake::of(&mut request)
                .events(Framing::Text, futures::stream::empty())
                .map(|upgrade| upgrade.response)
                .map_err(|refusal| refusal.code)
        };
        assert_eq!(request(&[], None).map(drop), Err(403));
        assert_eq!(request(&[], Some("null")).map(drop), Err(403));
        assert_eq!(request(&["a, b"], Some("https://h")).map(drop), Err(400));
        let response = request(&["v4"], Some("https://h:1")).expect("accepted");
        assert_eq!(response.headers()["sec-websocket-protocol"], "v4");
        assert_eq!(response.status(), 101);
    }
}
