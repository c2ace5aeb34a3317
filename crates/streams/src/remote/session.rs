//! A process's streams joined to a client's, whatever the protocol below.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use futures::future::FutureExt;
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use super::process::{Process, Resize, Size, Starter};
use super::status::{self, Kind};
use crate::{CHUNK, In, Input, LINGER, Out, Outgoing, Output};

/// After the process has ended, output that its children still hold open is waited for so long.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// A client's side of a session.
pub(super) struct Peer {
    pub(super) stdin: Option<In>,
    pub(super) resize: Option<In>,
    pub(super) out: Out,
    pub(super) stdout: Option<u32>,
    pub(super) stderr: Option<u32>,
    pub(super) error: u32,
    /// The result goes as a Status, else as a sentence.
    pub(super) structured: bool,
}

/// Runs the process, moves its streams, tells the result.
pub(super) async fn run(peer: Peer, kind: Kind, start: Starter) {
    let Peer { stdin, resize, out, stdout, stderr, error, structured } = peer;
    let process = match start().await {
        Ok(process) => process,
        Err(why) => {
            let text = kind.not_started(&why);
            return finish(out, Vec::new(), error, status::of_failure(&text, structured)).await;
        }
    };
    let Process { stdin: to, stdout: from, stderr: from_err, resize: sizes, exit } = process;
    let inputs = async move { futures::join!(feed(stdin, to), resizes(resize, sizes)) }.fuse();
    let (out1, out2) = (out.clone(), out.clone());
    let outputs = async move {
        futures::join!(pump(from, stdout, out1), pump(from_err, stderr, out2));
    };
    futures::pin_mut!(inputs);
    let ended = ended(exit, outputs).fuse();
    futures::pin_mut!(ended);
    let code = loop {
        futures::select_biased! {
            code = ended => break code,
            // Ended input does not end the session.
            _ = inputs => {}
            () = out.closed().fuse() => {
                // The client has gone: the process still gets what it was sent, and the end of it.
                let _late = tokio::time::timeout(LINGER, inputs).await;
                return;
            }
        }
    };
    let result = match code {
        Ok(code) => status::of_exit(kind, code, structured),
        Err(failure) => status::of_failure(&failure, structured),
    };
    let open: Vec<u32> = [stdout, stderr].into_iter().flatten().collect();
    finish(out.clone(), open, error, result).await;
}

/// The exit code, once the output that belongs to it was read.
async fn ended<E>(exit: E, outputs: impl Future<Output = ()>) -> E::Output
where
    E: Future + Unpin,
{
    let mut exit = exit;
    tokio::pin!(outputs);
    tokio::select! {
        code = &mut exit => {
            let _late = tokio::time::timeout(DRAIN_TIMEOUT, outputs).await;
            return code;
        }
        () = &mut outputs => {}
    }
    exit.await
}

async fn finish(out: Out, mut open: Vec<u32>, error: u32, result: Option<Bytes>) {
    open.push(error);
    let mut last: Vec<Outgoing> = Vec::new();
    last.extend(result.map(|data| Outgoing { stream: error, data: Some(data) }));
    last.extend(open.into_iter().map(|stream| Outgoing { stream, data: None }));
    for item in last {
        if out.send(item).await.is_err() {
            return;
        }
    }
}

async fn feed(from: Option<In>, to: Option<Output>) {
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
struct Wanted {
    width: u16,
    height: u16,
}

async fn resizes(from: Option<In>, to: Resize) {
    let Some(mut from) = from else { return };
    while let Some(data) = from.recv().await {
        // One or more JSON objects, one after another.
        let sizes = serde_json::Deserializer::from_slice(&data).into_iter::<Wanted>();
        let sizes: Vec<Wanted> = sizes.flatten().collect();
        for Wanted { width, height } in sizes {
            if !to(Size { width, height }).await {
                return;
            }
        }
    }
}

async fn pump(from: Option<Input>, id: Option<u32>, out: Out) {
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

/// The channel that input of a client without such a stream comes from: none.
pub(super) fn inputs() -> (mpsc::Sender<Bytes>, In) {
    mpsc::channel(crate::QUEUE)
}
