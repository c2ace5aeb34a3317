//! WebSocket frames: the client's are masked, the server's are not.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opcode {
    /// Text, binary, and their continuations.
    Data,
    Close,
    Ping,
    Pong,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) opcode: Opcode,
    pub(super) last: bool,
    pub(super) payload: Vec<u8>,
}

fn bad(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// `None` at the end of the connection.
pub(super) async fn read<R>(reader: &mut R, max: usize) -> io::Result<Option<Frame>>
where
    R: AsyncRead + Unpin,
{
    let mut head = [0; 2];
    match reader.read_exact(&mut head).await {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    };
    let opcode = match head[0] & 0x0f {
        0..=2 => Opcode::Data,
        8 => Opcode::Close,
        9 => Opcode::Ping,
        10 => Opcode::Pong,
        _ => return Err(bad("WebSocket: unknown opcode")),
    };
    if head[1] & 0x80 == 0 {
        return Err(bad("WebSocket: a client's frame must be masked"));
    }
    let length = match head[1] & 0x7f {
        126 => u64::from(reader.read_u16().await?),
        127 => reader.read_u64().await?,
        short => u64::from(short),
    };
    let length = usize::try_from(length).ok().filter(|n| *n <= max);
    let length = length.ok_or_else(|| bad("WebSocket: frame is too large"))?;
    let mut mask = [0; 4];
    reader.read_exact(&mut mask).await?;
    let mut payload = vec![0; length];
    reader.read_exact(&mut payload).await?;
    payload.iter_mut().enumerate().for_each(|(i, b)| *b ^= mask[i % 4]);
    Ok(Some(Frame { opcode, last: head[0] & 0x80 != 0, payload }))
}

fn frame(code: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0x80 | code];
    match payload.len() {
        n @ 0..126 => out.push(u8::try_from(n).expect("below 126")),
        n => match u16::try_from(n) {
            Ok(short) => {
                out.push(126);
                out.extend(short.to_be_bytes());
            }
            Err(_) => {
                out.push(127);
                out.extend((n as u64).to_be_bytes());
            }
        },
    }
    out.extend_from_slice(payload);
    out
}

pub(super) fn encode(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let code = match opcode {
        Opcode::Data => 2,
        Opcode::Close => 8,
        Opcode::Ping => 9,
        Opcode::Pong => 10,
    };
    frame(code, payload)
}

pub(super) fn encode_text(text: &[u8]) -> Vec<u8> {
    frame(1, text)
}

/// A client's frame, for tests.
#[cfg(test)]
pub(crate) fn masked(code: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = frame(code, payload);
    let head = out.len() - payload.len();
    out[1] |= 0x80;
    let mask = [1, 2, 3, 4];
    let body: Vec<u8> =
        out.split_off(head).iter().enumerate().map(|(i, b)| b ^ mask[i % 4]).collect();
    out.extend(mask);
    out.extend(body);
    out
}
