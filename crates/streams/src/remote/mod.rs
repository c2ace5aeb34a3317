//! Exec and attach: a process's streams joined to a client's, over either protocol.

mod process;
mod session;
mod status;

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures::future::FutureExt;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use crate::handshake::{accept_spdy, accept_websocket, choose_websocket};
use crate::websocket::Encoding;
use crate::{Out, Outgoing, QUEUE, Refusal, Upgrade, closed, is_websocket, spdy, websocket};
use session::Peer;

pub use process::{Options, Process, Resize, Size, Starter};
pub use status::Kind;

/// Clients open all their streams by then (upstream's `DefaultStreamCreationTimeout`).
const STREAMS_TIMEOUT: Duration = Duration::from_secs(30);
const SPDY_PROTOCOLS: &[&str] = &[
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v3.channel.k8s.io",
    "v2.channel.k8s.io",
    "channel.k8s.io",
];
const WEBSOCKET_PROTOCOLS: &[&str] = &[
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "channel.k8s.io",
    "base64.channel.k8s.io",
];
/// Channels of the WebSocket protocols.
const STDIN: u8 = 0;
const STDOUT: u32 = 1;
const STDERR: u32 = 2;
const ERROR: u32 = 3;
const RESIZE: u8 = 4;
/// v5: the payload is the channel that has ended.
const CLOSE: u8 = 255;

/// Accepts an upgrade request to a session of this kind.
pub fn accept<B>(
    request: &mut http::Request<B>,
    kind: Kind,
    options: Options,
    start: Starter,
) -> Result<Upgrade, Refusal> {
    let upgrade = hyper::upgrade::on(&mut *request);
    let headers = request.headers();
    let over_websocket = is_websocket(headers);
    let (response, protocol) = if over_websocket {
        let protocol = choose_websocket(headers, WEBSOCKET_PROTOCOLS).ok_or_else(|| {
            Refusal::new(403, "unable to upgrade: no supported WebSocket subprotocol")
        })?;
        (accept_websocket(headers, protocol)?, protocol)
    } else {
        accept_spdy(headers, SPDY_PROTOCOLS)?
    };
    let session = async move {
        match upgrade.await {
            Ok(io) if over_websocket => {
                websocket_session(TokioIo::new(io), protocol, kind, options, start).await;
            }
            Ok(io) => spdy_session(TokioIo::new(io), protocol, kind, options, start).await,
            Err(error) => tracing::debug!(%error, "upgrade failed"),
        }
    };
    Ok(Upgrade { response, session: session.boxed() })
}

pub(crate) async fn spdy_session<C>(
    io: C,
    protocol: &str,
    kind: Kind,
    options: Options,
    start: Starter,
) where
    C: AsyncRead + AsyncWrite + Send,
{
    let (streams, opened) = mpsc::channel(QUEUE);
    let (out, outgoing) = spdy::outgoing();
    let structured = matches!(protocol, "v4.channel.k8s.io" | "v5.channel.k8s.io");
    let resizable = options.tty && protocol != "channel.k8s.io" && protocol != "v2.channel.k8s.io";
    let work = async move {
        let peer = gather(opened, out, options, resizable, structured);
        let Ok(Ok((peer, _keep))) = tokio::time::timeout(STREAMS_TIMEOUT, peer).await else {
            tracing::debug!("the client did not open its streams in time");
            return;
        };
        session::run(peer, kind, start).boxed().await;
    };
    let (ran, ()) = futures::join!(spdy::run(io, streams, outgoing), work);
    if let Err(error) = ran {
        tracing::debug!(%error, "SPDY session ended");
    }
}

type Opened = mpsc::Receiver<spdy::Stream>;

/// Waits for the streams that the options call for.
async fn gather(
    mut opened: Opened,
    out: Out,
    options: Options,
    resizable: bool,
    structured: bool,
) -> io::Result<(Peer, Opened)> {
    let mut wanted = vec!["error"];
    wanted.extend(options.stdin.then_some("stdin"));
    wanted.extend(options.stdout.then_some("stdout"));
    wanted.extend((options.stderr && !options.tty).then_some("stderr"));
    wanted.extend(resizable.then_some("resize"));
    let mut found: HashMap<String, spdy::Stream> = HashMap::new();
    while !wanted.iter().all(|name| found.contains_key(*name)) {
        let stream = opened.recv().await.ok_or_else(closed)?;
        found.insert(stream.header("streamtype").to_owned(), stream);
    }
    let id = |name: &str| found.get(name).map(|s| s.id);
    let (stdout, stderr) = (id("stdout"), id("stderr"));
    let error = id("error").ok_or_else(closed)?;
    let stdin = found.remove("stdin").map(|s| s.input);
    let resize = found.remove("resize").map(|s| s.input);
    Ok((Peer { stdin, resize, out, stdout, stderr, error, structured }, opened))
}

pub(crate) async fn websocket_session<C>(
    io: C,
    protocol: &str,
    kind: Kind,
    options: Options,
    start: Starter,
) where
    C: AsyncRead + AsyncWrite + Send,
{
    let encoding = match protocol.contains("base64") {
        true => Encoding::Base64,
        false => Encoding::Binary,
    };
    let (messages, received) = mpsc::channel::<(u8, Vec<u8>)>(QUEUE);
    let (out, outgoing) = mpsc::channel(QUEUE);
    let (stdin_to, stdin) = session::inputs();
    let (resize_to, resize) = session::inputs();
    let stdout = options.stdout.then_some(STDOUT);
    let stderr = (options.stderr && !options.tty).then_some(STDERR);
    // An empty message on the lowest channel tells that the session stands.
    let first = Outgoing { stream: stdout.or(stderr).unwrap_or(ERROR), data: Some(Bytes::new()) };
    // The queue is empty and both its ends are here.
    let _queued = out.try_send(first);
    let peer = Peer {
        stdin: options.stdin.then_some(stdin),
        resize: Some(resize),
        out,
        stdout,
        stderr,
        error: ERROR,
        structured: protocol.starts_with("v4") || protocol.starts_with("v5"),
    };
    // Boxed here and below: otherwise the compiler cannot see that the whole can be sent.
    let demux = demux(received, stdin_to, resize_to).boxed();
    let run = websocket::run(io, encoding, messages, outgoing);
    let (ran, (), ()) = futures::join!(run, demux, session::run(peer, kind, start).boxed());
    if let Err(error) = ran {
        tracing::debug!(%error, "WebSocket session ended");
    }
}

/// Sorts messages by channel. An ended process reads nothing: later messages are dropped.
async fn demux(
    mut received: mpsc::Receiver<(u8, Vec<u8>)>,
    stdin: mpsc::Sender<Bytes>,
    resize: mpsc::Sender<Bytes>,
) {
    let mut stdin = Some(stdin);
    while let Some((channel, data)) = received.recv().await {
        if channel == CLOSE && data.first() == Some(&STDIN) {
            stdin = None;
        } else if channel == RESIZE {
            let _gone = resize.send(Bytes::from(data)).await;
        } else if let Some(to) = stdin.as_ref().filter(|_| channel == STDIN && !data.is_empty()) {
            let _gone = to.send(Bytes::from(data)).await;
        }
    }
}
