//! SPDY/3.1 frames: eight bytes of head, then the body.

use std::io;

use bytes::Bytes;

use super::headers::Inflater;

pub(super) const HEAD: usize = 8;
/// Larger frames are refused; clients send 32 KiB at most.
const FRAME_MAX: usize = 1 << 20;
const CONTROL: u8 = 0x80;
const VERSION: u8 = 3;
const FLAG_FIN: u8 = 1;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Control(u16),
    Data(u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) kind: Kind,
    pub(super) fin: bool,
    pub(super) length: usize,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    Open {
        stream: u32,
        headers: Vec<(String, String)>,
        fin: bool,
    },
    Data {
        stream: u32,
        data: Bytes,
        fin: bool,
    },
    Reset {
        stream: u32,
    },
    Ping {
        id: u32,
    },
    GoAway,
    /// Settings, window updates and such: nothing to do.
    Other,
}

pub(super) fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("SPDY: {what}"))
}

fn word(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(..4)?.try_into().ok()?))
}

impl Head {
    pub(super) fn parse(h: [u8; HEAD]) -> io::Result<Head> {
        let first = u32::from_be_bytes([h[0], h[1], h[2], h[3]]);
        let length =
            usize::try_from(u32::from_be_bytes([0, h[5], h[6], h[7]])).unwrap_or(usize::MAX);
        if length > FRAME_MAX {
            return Err(bad("frame is too large"));
        }
        let kind = match h[0] & CONTROL {
            0 => Kind::Data(first),
            _ if h[1] != VERSION => return Err(bad("unknown version")),
            _ => Kind::Control(u16::from_be_bytes([h[2], h[3]])),
        };
        Ok(Head { kind, fin: h[4] & FLAG_FIN != 0, length })
    }
}

impl Frame {
    pub(super) fn parse(head: &Head, body: Bytes, inflate: &mut Inflater) -> io::Result<Frame> {
        let short = || bad("frame is too short");
        let fin = head.fin;
        Ok(match head.kind {
            Kind::Data(stream) => Frame::Data { stream, data: body, fin },
            Kind::Control(SYN_STREAM) => {
                let stream = word(&body).ok_or_else(short)? & 0x7fff_ffff;
                // Stream, associated stream, priority, slot.
                let block = body.get(10..).ok_or_else(short)?;
                Frame::Open { stream, headers: inflate.block(block)?, fin }
            }
            Kind::Control(SYN_REPLY) => {
                // Keeps the shared compression state in step.
                inflate.block(body.get(4..).ok_or_else(short)?)?;
                Frame::Other
            }
            Kind::Control(RST_STREAM) => {
                Frame::Reset { stream: word(&body).ok_or_else(short)? & 0x7fff_ffff }
            }
            Kind::Control(PING) => Frame::Ping { id: word(&body).ok_or_else(short)? },
            Kind::Control(GOAWAY) => Frame::GoAway,
            Kind::Control(_) => Frame::Other,
        })
    }
}

fn control(kind: u16, body: &[&[u8]]) -> Vec<u8> {
    let length: usize = body.iter().map(|b| b.len()).sum();
    let length = u32::try_from(length).expect("our control frames are small").to_be_bytes();
    let kind = kind.to_be_bytes();
    let mut out = vec![CONTROL, VERSION, kind[0], kind[1], 0, length[1], length[2], length[3]];
    body.iter().for_each(|b| out.extend_from_slice(b));
    out
}

pub(super) fn reply(stream: u32, block: &[u8]) -> Vec<u8> {
    control(SYN_REPLY, &[&stream.to_be_bytes(), block])
}

pub(super) fn open(stream: u32, block: &[u8]) -> Vec<u8> {
    control(SYN_STREAM, &[&stream.to_be_bytes(), &[0; 6], block])
}

pub(super) fn ping(id: u32) -> Vec<u8> {
    control(PING, &[&id.to_be_bytes()])
}

pub(super) fn go_away() -> Vec<u8> {
    control(GOAWAY, &[&[0; 8]])
}

pub(super) fn data(stream: u32, data: &[u8], fin: bool) -> Vec<u8> {
    let length = u32::try_from(data.len()).expect("chunks are small").to_be_bytes();
    let mut out = Vec::with_capacity(HEAD + data.len());
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(&[u8::from(fin), length[1], length[2], length[3]]);
    out.extend_from_slice(data);
    out
}

/// A client's side, for tests.
#[cfg(test)]
pub(crate) mod tests_support {
    use super::super::headers::Deflater;
    use super::*;

    pub(crate) struct Opener(Deflater);

    impl Opener {
        pub(crate) fn new() -> Opener {
            Opener(Deflater::new().unwrap())
        }

        pub(crate) fn open(&mut self, stream: u32, headers: &[(&str, &str)]) -> Vec<u8> {
            let block = self.0.block(headers).unwrap();
            control(SYN_STREAM, &[&stream.to_be_bytes(), &[0; 6], &block])
        }
    }

    pub(crate) fn send(stream: u32, bytes: &[u8], fin: bool) -> Vec<u8> {
        data(stream, bytes, fin)
    }
}
