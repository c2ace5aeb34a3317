//! Exec and attach: a process's streams joined to a client's, over either protocol.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use client::Tasks;
use futures::future::{BoxFuture, FutureExt};
use http::StatusCode;
use hyper_util::rt::TokioIo;
use runtime::{ExecSession, StreamOptions, TerminalSize};
use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use super::websocket::Encoding;
use super::{CHUNK, In, Out, Outgoing, QUEUE, closed, spdy, websocket};
use crate::server::{Request, Response, answer, full};

/// Clients open all their streams by then (the original's default).
const STREAMS_TIMEOUT: Duration = Duration::from_secs(30);
/// After the process has ended, output that its children still hold open is waited for so long.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);
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

/// Starts the process once the client is there.
pub(crate) type Starter =
    Box<dyn FnOnce() -> BoxFuture<'static, runtime::Result<ExecSession>> + Send>;

/// A client's side of a session.
struct Peer {
    stdin: Option<In>,
    resize: Option<In>,
    out: Out,
    stdout: Option<u32>,
    stderr: Option<u32>,
    error: u32,
    /// Exit codes go as a Status (v4 on), else as a sentence.
    structured: bool,
}

/// Answers an upgrade request and joins the streams in a task.
pub(crate) fn serve(
    tasks: &Tasks,
    mut request: Request,
    options: StreamOptions,
    start: Starter,
) -> Response {
    let upgrade = hyper::upgrade::on(&mut request);
    if super::is_websocket(request.headers()) {
        let Some(protocol) = websocket::choose(request.headers(), WEBSOCKET_PROTOCOLS) else {
            return answer(403, "unable to upgrade: no supported WebSocket subprotocol");
        };
        let response = match websocket::accept(request.headers(), protocol) {
            Ok(response) => response,
            Err(refused) => return *refused,
        };
        tasks.spawn("websocket session", async move {
            match upgrade.await {
                Ok(io) => over_websocket(TokioIo::new(io), protocol, options, start).await,
                Err(error) => tracing::debug!(%error, "upgrade failed"),
            }
        });
        return response;
    }
    let (response, protocol) = match spdy_handshake(&request, SPDY_PROTOCOLS) {
        Ok(accepted) => accepted,
        Err(refused) => return *refused,
    };
    tasks.spawn("SPDY session", async move {
        match upgrade.await {
            Ok(io) => over_spdy(TokioIo::new(io), protocol, options, start).await,
            Err(error) => tracing::debug!(%error, "upgrade failed"),
        }
    });
    response
}

/// The answer to an upgrade to SPDY, and the protocol spoken on it.
pub(super) fn spdy_handshake(
    request: &Request,
    supported: &[&'static str],
) -> Result<(Response, &'static str), Box<Response>> {
    let headers = request.headers();
    let asked = headers.get("upgrade").and_then(|v| v.to_str().ok()).unwrap_or("");
    if !asked.eq_ignore_ascii_case("SPDY/3.1") {
        let text = "unable to upgrade: missing upgrade headers in request";
        return Err(Box::new(answer(400, text)));
    }
    let versions = headers.get_all("x-stream-protocol-version").iter();
    let versions = versions.filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
    let mut versions = versions.map(str::trim).peekable();
    let chosen = match versions.peek() {
        None => supported.last().copied(),
        Some(_) => versions.find_map(|v| supported.iter().find(|s| **s == v).copied()),
    };
    let Some(chosen) = chosen else {
        return Err(Box::new(answer(403, "unable to upgrade: unable to negotiate protocol")));
    };
    let response = http::Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header("connection", "Upgrade")
        .header("upgrade", "SPDY/3.1")
        .header("x-stream-protocol-version", chosen)
        .body(full(""));
    response.map(|r| (r, chosen)).map_err(|e| Box::new(answer(500, e.to_string())))
}

pub(super) async fn over_spdy<C>(io: C, protocol: &str, options: StreamOptions, start: Starter)
where
    C: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send,
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
        session(peer, start).boxed().await;
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
    options: StreamOptions,
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

async fn over_websocket<C>(io: C, protocol: &str, options: StreamOptions, start: Starter)
where
    C: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send,
{
    let encoding = match protocol.contains("base64") {
        true => Encoding::Base64,
        false => Encoding::Binary,
    };
    let (messages, received) = mpsc::channel::<(u8, Vec<u8>)>(QUEUE);
    let (out, outgoing) = mpsc::channel(QUEUE);
    let (stdin_to, stdin) = mpsc::channel(QUEUE);
    let (resize_to, resize) = mpsc::channel(QUEUE);
    let peer = Peer {
        stdin: options.stdin.then_some(stdin),
        resize: Some(resize),
        out,
        stdout: options.stdout.then_some(STDOUT),
        stderr: (options.stderr && !options.tty).then_some(STDERR),
        error: ERROR,
        structured: protocol.starts_with("v4") || protocol.starts_with("v5"),
    };
    // Boxed here and below: otherwise the compiler cannot see that the whole can be sent.
    let demux = demux(received, stdin_to, resize_to).boxed();
    let run = websocket::run(io, encoding, messages, outgoing);
    let (ran, (), ()) = futures::join!(run, demux, session(peer, start).boxed());
    if let Err(error) = ran {
        tracing::debug!(%error, "WebSocket session ended");
    }
}

/// Sorts messages by channel. An ended process reads nothing: what still comes is dropped.
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

/// Runs the process, moves its streams, tells the result.
async fn session(peer: Peer, start: Starter) {
    let Peer { stdin, resize, out, stdout, stderr, error, structured } = peer;
    let process = match start().await {
        Ok(process) => process,
        Err(failure) => {
            let text = format!("error executing command in container: {}", failure.chain());
            return finish(out, Vec::new(), error, failed(&text, structured)).await;
        }
    };
    let ExecSession { stdin: to, stdout: from, stderr: from_err, resize: sizes, exit } = process;
    let inputs = async move {
        futures::join!(feed(stdin, to), resizes(resize, sizes));
        // Ended input does not end the session.
        futures::future::pending::<()>().await;
    };
    let (out1, out2) = (out.clone(), out.clone());
    let outputs = async move {
        futures::join!(pump(from, stdout, out1), pump(from_err, stderr, out2));
    };
    tokio::pin!(outputs);
    let ended = async {
        let mut exit = exit;
        let early = tokio::select! {
            code = &mut exit => Some(code),
            () = &mut outputs => None,
        };
        match early {
            Some(code) => {
                let _late = tokio::time::timeout(DRAIN_TIMEOUT, &mut outputs).await;
                code
            }
            None => exit.await,
        }
    };
    let code = tokio::select! {
        code = ended => code,
        () = inputs => return,
        () = out.closed() => return,
    };
    let result = match code {
        Ok(0) => structured.then(|| json!({"metadata": {}, "status": "Success"}).to_string()),
        Ok(code) => exited(code, structured),
        Err(failure) => failed(&failure.chain(), structured),
    };
    let open: Vec<u32> = [stdout, stderr].into_iter().flatten().collect();
    finish(out.clone(), open, error, result).await;
}

fn exited(code: i32, structured: bool) -> Option<String> {
    let text = format!("command terminated with non-zero exit code: exit status {code}");
    if !structured {
        return Some(text);
    }
    let cause = json!({"reason": "ExitCode", "message": code.to_string()});
    let status = json!({"metadata": {}, "status": "Failure", "message": text, "reason": "NonZeroExitCode", "details": {"causes": [cause]}});
    Some(status.to_string())
}

fn failed(text: &str, structured: bool) -> Option<String> {
    if !structured {
        return Some(text.to_owned());
    }
    let message = format!("Internal error occurred: {text}");
    let details = json!({"causes": [{"message": text}]});
    Some(json!({"metadata": {}, "status": "Failure", "message": message, "reason": "InternalError", "details": details, "code": 500}).to_string())
}

async fn finish(out: Out, mut open: Vec<u32>, error: u32, text: Option<String>) {
    open.push(error);
    let mut last: Vec<Outgoing> = Vec::new();
    last.extend(text.map(|t| Outgoing { stream: error, data: Some(Bytes::from(t)) }));
    last.extend(open.into_iter().map(|stream| Outgoing { stream, data: None }));
    for item in last {
        if out.send(item).await.is_err() {
            return;
        }
    }
}

async fn feed(from: Option<In>, to: Option<runtime::service::Output>) {
    let (Some(mut from), Some(mut to)) = (from, to) else { return };
    while let Some(data) = from.recv().await {
        // The process does not read any more.
        if to.write_all(&data).await.is_err() || to.flush().await.is_err() {
            return;
        }
    }
    if let Err(error) = to.shutdown().await {
        tracing::debug!(%error, "stdin not closed");
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Size {
    width: u16,
    height: u16,
}

async fn resizes(from: Option<In>, to: mpsc::Sender<TerminalSize>) {
    let Some(mut from) = from else { return };
    while let Some(data) = from.recv().await {
        // One or more JSON objects, one after another.
        let sizes = serde_json::Deserializer::from_slice(&data).into_iter::<Size>();
        let sizes: Vec<Size> = sizes.flatten().collect();
        for Size { width, height } in sizes {
            if to.send(TerminalSize { width, height }).await.is_err() {
                return;
            }
        }
    }
}

async fn pump(from: Option<runtime::service::Input>, id: Option<u32>, out: Out) {
    let (Some(mut from), Some(stream)) = (from, id) else { return };
    let mut buffer = vec![0; CHUNK];
    loop {
        match from.read(&mut buffer).await {
            // A terminal's end reads as an error.
            Ok(0) | Err(_) => return,
            Ok(n) => {
                let data = Some(Bytes::copy_from_slice(&buffer[..n]));
                if out.send(Outgoing { stream, data }).await.is_err() {
                    return;
                }
            }
        }
    }
}
