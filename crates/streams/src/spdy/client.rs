//! The client's side of a SPDY/3.1 session: it opens the streams.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;

use super::frame::{self, Frame, Head};
use super::headers;
use crate::{CHUNK, In, Input, Out, Outgoing, Output, QUEUE};

/// Answers waiting to be sent.
const CONTROLS: usize = 16;

/// Streams by their numbers.
type Open = Arc<Mutex<HashMap<u32, mpsc::Sender<Bytes>>>>;

/// A stream that is to be opened: its headers, and where its input goes.
pub(crate) struct Opening {
    pub(crate) headers: Vec<(&'static str, String)>,
    input: mpsc::Sender<Bytes>,
    id: u32,
}

/// The streams of a session, in the order in which they are opened.
#[derive(Default)]
pub(crate) struct Plan(Vec<Opening>);

impl Plan {
    /// Adds a stream; clients have the odd numbers.
    pub(crate) fn open(&mut self, headers: Vec<(&'static str, String)>) -> (u32, In) {
        let (input, from) = mpsc::channel(QUEUE);
        let id = u32::try_from(2 * self.0.len() + 1).unwrap_or(u32::MAX);
        self.0.push(Opening { headers, input, id });
        (id, from)
    }
}

/// Runs a session with these streams until the server closes it or `outgoing` ends.
pub(crate) async fn run<C>(
    connection: C,
    plan: Plan,
    outgoing: mpsc::Receiver<Outgoing>,
) -> io::Result<()>
where
    C: AsyncRead + AsyncWrite + Send,
{
    let (reader, mut writer) = tokio::io::split(connection);
    let open = Open::default();
    let mut deflate = headers::Deflater::new()?;
    for Opening { headers, input, id } in plan.0 {
        let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
        open.lock().unwrap_or_else(PoisonError::into_inner).insert(id, input);
        writer.write_all(&frame::open(id, &deflate.block(&headers)?)).await?;
    }
    writer.flush().await?;
    let (control, controls) = mpsc::channel(CONTROLS);
    let reading = read(reader, open.clone(), control);
    let writing = write(writer, controls, outgoing);
    super::until_closed(reading, writing).await
}

async fn read<R: AsyncRead>(
    mut reader: ReadHalf<R>,
    open: Open,
    control: mpsc::Sender<u32>,
) -> io::Result<()> {
    let mut inflate = headers::Inflater::new()?;
    let of = |stream| open.lock().unwrap_or_else(PoisonError::into_inner).get(&stream).cloned();
    let end = |stream| open.lock().unwrap_or_else(PoisonError::into_inner).remove(&stream);
    loop {
        let mut head = [0; frame::HEAD];
        match reader.read_exact(&mut head).await {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            other => other?,
        };
        let head = Head::parse(head)?;
        let mut body = vec![0; head.length];
        reader.read_exact(&mut body).await?;
        match Frame::parse(&head, Bytes::from(body), &mut inflate)? {
            Frame::Data { stream, data, fin } => {
                if let Some(sender) = of(stream).filter(|_| !data.is_empty()) {
                    // Dropped when nobody reads it any more.
                    let _gone = sender.send(data).await;
                }
                if fin {
                    end(stream);
                }
            }
            Frame::Reset { stream } => drop(end(stream)),
            Frame::Ping { id } => {
                let _gone = control.send(id).await;
            }
            Frame::GoAway => return Ok(()),
            Frame::Open { .. } => return Err(frame::bad("the server opens a stream")),
            Frame::Other => {}
        }
        if open.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
            return Ok(());
        }
    }
}

async fn write<W: AsyncWrite>(
    mut writer: WriteHalf<W>,
    mut controls: mpsc::Receiver<u32>,
    mut outgoing: mpsc::Receiver<Outgoing>,
) -> io::Result<()> {
    loop {
        let bytes = tokio::select! {
            biased;
            Some(ping) = controls.recv() => frame::ping(ping),
            out = outgoing.recv() => match out {
                Some(Outgoing { stream, data: Some(data) }) => frame::data(stream, &data, false),
                Some(Outgoing { stream, data: None }) => frame::data(stream, &[], true),
                None => return Ok(()),
            },
        };
        writer.write_all(&bytes).await?;
        writer.flush().await?;
    }
}

/// Moves a stream's bytes to whoever reads them.
pub(crate) async fn deliver(mut from: In, mut to: Output) {
    while let Some(data) = from.recv().await {
        if to.write_all(&data).await.is_err() || to.flush().await.is_err() {
            return;
        }
    }
    if let Err(error) = to.shutdown().await {
        tracing::debug!(%error, "a stream's reader has gone");
    }
}

/// Moves bytes onto a stream, and its end.
pub(crate) async fn collect(mut from: Input, stream: u32, out: Out) {
    let mut buffer = vec![0; CHUNK];
    loop {
        let data = match from.read(&mut buffer).await {
            Ok(0) | Err(_) => None,
            Ok(n) => Some(Bytes::copy_from_slice(&buffer[..n])),
        };
        let ended = data.is_none();
        if out.send(Outgoing { stream, data }).await.is_err() || ended {
            return;
        }
    }
}
