//! WebSocket (RFC 6455), the server's side: messages, control frames, the closing handshake.

mod frame;

use std::io;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot};

use super::{LINGER, Outgoing};
use frame::Opcode;

#[cfg(test)]
pub(crate) use frame::masked;

/// Larger messages are refused; clients send 32 KiB at most.
const MESSAGE_MAX: usize = 1 << 20;
/// Payload of a control frame (RFC 6455 §5.5).
const PING_MAX: usize = 125;
/// Answers waiting to be sent.
const CONTROLS: usize = 16;

/// Status codes of a Close frame (RFC 6455 §7.4.1).
const NORMAL: u16 = 1000;
const PROTOCOL_ERROR: u16 = 1002;

/// How a payload is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// First byte: the channel.
    Binary,
    /// First character: the channel's digit; the rest base64.
    Base64,
    /// The payload alone, in a binary frame.
    Raw,
    /// The payload alone as base64, in a text frame.
    RawBase64,
    /// The payload alone, in a text frame.
    Text,
}

/// Runs a connection: the peer's messages, decoded, go to `messages` as channel and payload.
///
/// When `outgoing` ends, a Close frame follows the last message, and the peer's input is discarded until
/// it closes. When the peer sends Close, its earlier messages are still delivered, messages that are
/// already queued for it are sent, and Close is answered.
pub(crate) async fn run<C>(
    connection: C,
    encoding: Encoding,
    messages: mpsc::Sender<(u8, Vec<u8>)>,
    outgoing: mpsc::Receiver<Outgoing>,
) -> io::Result<()>
where
    C: AsyncRead + AsyncWrite + Send,
{
    let (reader, writer) = tokio::io::split(connection);
    let (control, controls) = mpsc::channel(CONTROLS);
    let (close, closing) = oneshot::channel();
    let reading = read(reader, encoding, messages, control);
    let writing = write(writer, encoding, controls, outgoing, closing);
    tokio::pin!(reading, writing);
    let read = tokio::select! {
        read = &mut reading => read,
        written = &mut writing => {
            written?;
            return tokio::time::timeout(LINGER, reading).await.unwrap_or(Ok(End::Closed)).map(drop);
        }
    };
    let code = match &read {
        Ok(End::Closed) => NORMAL,
        Err(error) if error.kind() == io::ErrorKind::InvalidData => PROTOCOL_ERROR,
        // The connection is gone: there is nobody to answer.
        Ok(End::Lost) | Err(_) => return read.map(drop),
    };
    // The writer is still there: it waits for this.
    let _sent = close.send(code);
    tokio::time::timeout(LINGER, writing).await.unwrap_or(Ok(()))?;
    read.map(drop)
}

/// How the peer's input ended.
enum End {
    /// With a Close frame.
    Closed,
    /// With the connection.
    Lost,
}

fn bad(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

async fn read<C: AsyncRead>(
    mut reader: ReadHalf<C>,
    encoding: Encoding,
    messages: mpsc::Sender<(u8, Vec<u8>)>,
    control: mpsc::Sender<Vec<u8>>,
) -> io::Result<End> {
    let mut whole = Vec::new();
    while let Some(frame) = frame::read(&mut reader, MESSAGE_MAX).await? {
        match frame.opcode {
            Opcode::Ping if frame.payload.len() > PING_MAX => {
                return Err(bad("control frame too large"));
            }
            Opcode::Ping => {
                let pong = frame::encode(Opcode::Pong, &frame.payload);
                // Waits for a peer that asks and does not read; fails when all was sent.
                let _gone = control.send(pong).await;
            }
            Opcode::Pong => {}
            Opcode::Close => return Ok(End::Closed),
            Opcode::Data => {
                whole.extend_from_slice(&frame.payload);
                if whole.len() > MESSAGE_MAX {
                    return Err(bad("message too large"));
                }
                if frame.last {
                    let message = decode(encoding, std::mem::take(&mut whole))?;
                    // Dropped when the receiver has gone: an ended process reads nothing.
                    let _gone = messages.send(message).await;
                }
            }
        }
    }
    Ok(End::Lost)
}

fn decode(encoding: Encoding, mut message: Vec<u8>) -> io::Result<(u8, Vec<u8>)> {
    let channelled = matches!(encoding, Encoding::Binary | Encoding::Base64);
    if !channelled || message.is_empty() {
        return Ok((0, message));
    }
    let payload = message.split_off(1);
    if encoding == Encoding::Binary {
        return Ok((message[0], payload));
    }
    let decoded = STANDARD.decode(payload);
    let decoded = decoded.map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
    Ok((message[0].wrapping_sub(b'0'), decoded))
}

async fn write<C: AsyncWrite>(
    mut writer: WriteHalf<C>,
    encoding: Encoding,
    mut controls: mpsc::Receiver<Vec<u8>>,
    mut outgoing: mpsc::Receiver<Outgoing>,
    mut closing: oneshot::Receiver<u16>,
) -> io::Result<()> {
    let mut code = NORMAL;
    loop {
        let bytes = tokio::select! {
            biased;
            Some(control) = controls.recv() => control,
            Ok(asked) = &mut closing => {
                code = asked;
                break;
            }
            out = outgoing.recv() => match out {
                Some(out) => encode(encoding, &out),
                None => break,
            },
        };
        writer.write_all(&bytes).await?;
        writer.flush().await?;
    }
    while let Ok(out) = outgoing.try_recv() {
        writer.write_all(&encode(encoding, &out)).await?;
    }
    writer.write_all(&frame::encode(Opcode::Close, &code.to_be_bytes())).await?;
    writer.shutdown().await
}

/// A message as a frame; nothing for the end of a stream, which WebSocket channels do not have.
fn encode(encoding: Encoding, out: &Outgoing) -> Vec<u8> {
    let Some(data) = &out.data else { return Vec::new() };
    let channel = u8::try_from(out.stream).unwrap_or(u8::MAX);
    match encoding {
        Encoding::Raw => frame::encode(Opcode::Data, data),
        Encoding::Binary => frame::encode(Opcode::Data, &[&[channel], &data[..]].concat()),
        Encoding::Base64 => {
            frame::encode_text(format!("{channel}{}", STANDARD.encode(data)).as_bytes())
        }
        Encoding::RawBase64 => frame::encode_text(STANDARD.encode(data).as_bytes()),
        Encoding::Text => frame::encode_text(data),
    }
}
