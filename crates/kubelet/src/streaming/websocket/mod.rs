//! WebSocket (RFC 6455), the server's side: handshake, messages, control frames.

mod frame;

use std::io;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;

use super::Outgoing;
use crate::server::{Response, answer};
use frame::Opcode;

#[cfg(test)]
pub(in crate::streaming) use frame::masked;

const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Larger messages are refused; clients send 32 KiB at most.
const MESSAGE_MAX: usize = 1 << 20;
/// Payload of a control frame (RFC 6455, 5.5).
const PING_MAX: usize = 125;
/// Answers waiting to be sent.
const CONTROLS: usize = 16;

/// How payloads are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// First byte: the channel.
    Binary,
    /// First character: the channel's digit; the rest base64.
    Base64,
    /// The payload alone: a tunnel.
    Raw,
}

pub(crate) fn is_upgrade(headers: &HeaderMap) -> bool {
    let has = |name: &str, word: &str| {
        let values = headers.get_all(name).iter().filter_map(|v| v.to_str().ok());
        values.flat_map(|v| v.split(',')).any(|v| v.trim().eq_ignore_ascii_case(word))
    };
    has("connection", "upgrade") && has("upgrade", "websocket")
}

/// The first of the client's protocols that is supported; a client that names none gets none.
pub(super) fn choose<'a>(headers: &HeaderMap, supported: &[&'a str]) -> Option<&'a str> {
    let values = headers.get_all("sec-websocket-protocol").iter().filter_map(|v| v.to_str().ok());
    let mut asked = values.flat_map(|v| v.split(',')).map(str::trim).peekable();
    if asked.peek().is_none() {
        return Some("");
    }
    asked.find_map(|p| supported.iter().find(|s| **s == p).copied())
}

/// The answer to a handshake.
pub(super) fn accept(headers: &HeaderMap, protocol: &str) -> Result<Response, Box<Response>> {
    let key = headers.get("sec-websocket-key").and_then(|v| v.to_str().ok());
    let key = key.ok_or_else(|| Box::new(answer(400, "missing Sec-WebSocket-Key")))?;
    let hashed = ring::digest::digest(
        &ring::digest::SHA1_FOR_LEGACY_USE_ONLY,
        format!("{key}{GUID}").as_bytes(),
    );
    let mut builder = http::Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-accept", STANDARD.encode(hashed));
    if !protocol.is_empty() {
        builder = builder.header("sec-websocket-protocol", protocol);
    }
    builder.body(crate::server::full("")).map_err(|e| Box::new(answer(500, e.to_string())))
}

/// Runs a connection: the peer's messages, decoded, go to `messages` as channel and payload.
pub(super) async fn run<C>(
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
    tokio::select! {
        read = read(reader, encoding, messages, control) => read,
        written = write(writer, encoding, controls, outgoing) => written,
    }
}

async fn read<C: AsyncRead>(
    mut reader: ReadHalf<C>,
    encoding: Encoding,
    messages: mpsc::Sender<(u8, Vec<u8>)>,
    control: mpsc::Sender<Vec<u8>>,
) -> io::Result<()> {
    let mut whole = Vec::new();
    while let Some(frame) = frame::read(&mut reader, MESSAGE_MAX).await? {
        match frame.opcode {
            Opcode::Ping if frame.payload.len() > PING_MAX => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "control frame too large"));
            }
            Opcode::Ping => {
                let pong = frame::encode(Opcode::Pong, &frame.payload);
                // Waits for a peer that asks and does not read.
                let _gone = control.send(pong).await;
            }
            Opcode::Pong => {}
            Opcode::Close => return Ok(()),
            Opcode::Data => {
                whole.extend_from_slice(&frame.payload);
                if whole.len() > MESSAGE_MAX {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "message too large"));
                }
                if frame.last {
                    let message = decode(encoding, std::mem::take(&mut whole))?;
                    if messages.send(message).await.is_err() {
                        return Ok(());
                    }
                }
            }
        }
    }
    Ok(())
}

fn decode(encoding: Encoding, mut message: Vec<u8>) -> io::Result<(u8, Vec<u8>)> {
    if encoding == Encoding::Raw || message.is_empty() {
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
) -> io::Result<()> {
    loop {
        let bytes = tokio::select! {
            biased;
            Some(control) = controls.recv() => control,
            out = outgoing.recv() => match out {
                // Channels have no end of their own here.
                Some(Outgoing { data: None, .. }) => continue,
                Some(Outgoing { stream, data: Some(data) }) => encode(encoding, stream, &data),
                None => break,
            },
        };
        writer.write_all(&bytes).await?;
        writer.flush().await?;
    }
    // 1000: normal closure.
    writer.write_all(&frame::encode(Opcode::Close, &1000u16.to_be_bytes())).await?;
    writer.shutdown().await
}

fn encode(encoding: Encoding, stream: u32, data: &[u8]) -> Vec<u8> {
    let channel = u8::try_from(stream).unwrap_or(u8::MAX);
    let payload = match encoding {
        Encoding::Raw => data.to_vec(),
        Encoding::Binary => [&[channel], data].concat(),
        Encoding::Base64 => {
            return frame::encode_text(&format!("{channel}{}", STANDARD.encode(data)));
        }
    };
    frame::encode(Opcode::Data, &payload)
}
