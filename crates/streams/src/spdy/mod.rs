//! SPDY/3.1, as much as Kubernetes' streaming uses: streams opened by the client, data, ping, reset.

pub(crate) mod client;
mod frame;
mod headers;

use std::collections::HashMap;
use std::io;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;

use super::{In, LINGER, Out, Outgoing, QUEUE};
use frame::{Frame, Head};

/// Open streams of one session: a forwarded connection has two.
const STREAMS_MAX: usize = 1024;
/// Answers waiting to be sent.
const CONTROLS: usize = 16;

/// A stream the client opened.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) id: u32,
    pub(super) headers: Vec<(String, String)>,
    pub(super) input: In,
}

impl Stream {
    pub(super) fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map_or("", |(_, v)| v.as_str())
    }
}

/// What the session's reader asks its writer to send.
enum Control {
    Reply(u32),
    Pong(u32),
}

/// Runs a session until the peer closes it or `outgoing` ends; new streams go to `streams`.
///
/// When all was sent, the peer's input is discarded until the peer closes: a socket that is closed with
/// unread input is reset, and the peer would lose the last data.
pub(super) async fn run<C>(
    connection: C,
    streams: mpsc::Sender<Stream>,
    outgoing: mpsc::Receiver<Outgoing>,
) -> io::Result<()>
where
    C: AsyncRead + AsyncWrite + Send,
{
    let (reader, writer) = tokio::io::split(connection);
    let (control, controls) = mpsc::channel(CONTROLS);
    let reading = read(reader, streams, control);
    let writing = write(writer, controls, outgoing);
    until_closed(reading, writing).await
}

/// Runs the two halves of a session. After the last frame is written, the peer has [`LINGER`] to close.
async fn until_closed(
    reading: impl Future<Output = io::Result<()>>,
    writing: impl Future<Output = io::Result<()>>,
) -> io::Result<()> {
    tokio::pin!(reading, writing);
    tokio::select! {
        read = &mut reading => read,
        written = &mut writing => {
            written?;
            tokio::time::timeout(LINGER, reading).await.unwrap_or(Ok(()))
        }
    }
}

async fn read<R: AsyncRead>(
    mut reader: ReadHalf<R>,
    streams: mpsc::Sender<Stream>,
    control: mpsc::Sender<Control>,
) -> io::Result<()> {
    let mut inflate = headers::Inflater::new()?;
    let mut open: HashMap<u32, mpsc::Sender<Bytes>> = HashMap::new();
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
            Frame::Open { stream, headers, fin } => {
                let (sender, input) = mpsc::channel(QUEUE);
                if open.len() >= STREAMS_MAX {
                    return Err(io::Error::other("too many streams"));
                }
                if !fin {
                    open.insert(stream, sender);
                }
                // The answer first: clients wait for it before they open the next stream. A peer
                // that asks and does not read is waited for.
                let _gone = control.send(Control::Reply(stream)).await;
                // Nobody takes new streams at the end of a session.
                let _gone = streams.send(Stream { id: stream, headers, input }).await;
            }
            Frame::Data { stream, data, fin } => {
                if let Some(sender) = open.get(&stream).filter(|_| !data.is_empty()) {
                    // Dropped when the receiver has gone: an ended process reads nothing.
                    let _gone = sender.send(data).await;
                }
                if fin {
                    open.remove(&stream);
                }
            }
            Frame::Reset { stream } => {
                open.remove(&stream);
            }
            Frame::Ping { id } => {
                let _gone = control.send(Control::Pong(id)).await;
            }
            Frame::GoAway => return Ok(()),
            Frame::Other => {}
        }
    }
}

async fn write<W: AsyncWrite>(
    mut writer: WriteHalf<W>,
    mut controls: mpsc::Receiver<Control>,
    mut outgoing: mpsc::Receiver<Outgoing>,
) -> io::Result<()> {
    let mut deflate = headers::Deflater::new()?;
    loop {
        let bytes = tokio::select! {
            biased;
            Some(control) = controls.recv() => match control {
                Control::Reply(stream) => frame::reply(stream, &deflate.block(&[])?),
                Control::Pong(id) => frame::ping(id),
            },
            out = outgoing.recv() => match out {
                Some(Outgoing { stream, data: Some(data) }) => frame::data(stream, &data, false),
                Some(Outgoing { stream, data: None }) => frame::data(stream, &[], true),
                None => break,
            },
        };
        writer.write_all(&bytes).await?;
        writer.flush().await?;
    }
    writer.write_all(&frame::go_away()).await?;
    writer.shutdown().await
}

/// A sender and receiver of outgoing data.
pub(crate) fn outgoing() -> (Out, mpsc::Receiver<Outgoing>) {
    mpsc::channel(QUEUE)
}

#[cfg(test)]
pub(super) use frame::tests_support;
