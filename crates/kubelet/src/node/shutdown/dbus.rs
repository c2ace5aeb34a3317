//! As much of D-Bus as talking to logind takes: calls with text arguments, their answers, signals.
//!
//! One connection, one reader. Numbers are sent little-endian and read as the peer sends them.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, RecvMsg, recvmsg};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;

/// Of one call, and of the greeting.
const DEADLINE: Duration = Duration::from_secs(10);
/// Longest message that is read: logind's are some hundred bytes.
const MESSAGE_MAX: usize = 64 << 10;
/// Descriptors of one message.
const FDS_MAX: usize = 4;

const CALL: u8 = 1;
const RETURN: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;

/// Kinds of header fields.
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// An argument of a call.
#[derive(Debug, Clone, Copy)]
pub(super) enum Arg<'a> {
    Text(&'a str),
    Int(i32),
}

/// Whom a call is for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Method<'a> {
    pub(super) destination: &'a str,
    pub(super) path: &'a str,
    pub(super) interface: &'a str,
    pub(super) member: &'a str,
}

#[derive(Debug, Default)]
pub(super) struct Message {
    kind: u8,
    big: bool,
    reply_to: u32,
    pub(super) interface: String,
    pub(super) member: String,
    error: String,
    body: Vec<u8>,
    fds: Vec<OwnedFd>,
}

impl Message {
    pub(super) fn is_signal(&self) -> bool {
        self.kind == SIGNAL
    }

    fn reader(&self) -> Reader<'_> {
        Reader { bytes: &self.body, at: 0, big: self.big }
    }

    /// A body that is one boolean.
    pub(super) fn boolean(&self) -> io::Result<bool> {
        Ok(self.reader().number()? != 0)
    }

    /// A body that is a variant with an unsigned number of 64 bits.
    pub(super) fn variant_u64(&self) -> io::Result<u64> {
        let mut reader = self.reader();
        match reader.signature()?.as_str() {
            "t" => reader.long(),
            other => Err(bad(&format!("expected a number, found {other:?}"))),
        }
    }

    /// The descriptor that came along.
    pub(super) fn descriptor(self) -> io::Result<OwnedFd> {
        self.fds.into_iter().next().ok_or_else(|| bad("no descriptor came"))
    }
}

fn bad(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("D-Bus: {why}"))
}

pub(super) struct Bus {
    stream: UnixStream,
    serial: u32,
    unread: Vec<u8>,
    fds: Vec<OwnedFd>,
}

impl Bus {
    pub(super) async fn connect(path: &Path) -> io::Result<Bus> {
        let greeting = async {
            let mut stream = UnixStream::connect(path).await?;
            authenticate(&mut stream).await?;
            let mut bus = Bus { stream, serial: 0, unread: Vec::new(), fds: Vec::new() };
            bus.call(own("Hello"), &[]).await?;
            Ok(bus)
        };
        tokio::time::timeout(DEADLINE, greeting).await?
    }

    /// Asks, and waits for the answer; signals that come before it are lost.
    pub(super) async fn call(
        &mut self,
        method: Method<'_>,
        args: &[Arg<'_>],
    ) -> io::Result<Message> {
        self.serial += 1;
        let serial = self.serial;
        let exchange = async {
            self.stream.write_all(&encode(serial, method, args)).await?;
            loop {
                let message = self.next().await?;
                match message.kind {
                    RETURN if message.reply_to == serial => return Ok(message),
                    ERROR if message.reply_to == serial => {
                        let text = message.reader().text().unwrap_or_default();
                        return Err(io::Error::other(format!("{}: {text}", message.error)));
                    }
                    _ => {}
                }
            }
        };
        tokio::time::timeout(DEADLINE, exchange).await?
    }

    /// Asks for signals.
    pub(super) async fn subscribe(&mut self, rule: &str) -> io::Result<()> {
        self.call(own("AddMatch"), &[Arg::Text(rule)]).await.map(drop)
    }

    /// The next message, however long that takes.
    pub(super) async fn next(&mut self) -> io::Result<Message> {
        loop {
            if let Some(length) = length(&self.unread)?
                && self.unread.len() >= length
            {
                let rest = self.unread.split_off(length);
                let bytes = std::mem::replace(&mut self.unread, rest);
                return decode(&bytes, std::mem::take(&mut self.fds));
            }
            self.receive().await?;
        }
    }

    async fn receive(&mut self) -> io::Result<()> {
        let mut buffer = [0u8; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let Bus { stream, unread, fds, .. } = self;
        let count = stream
            .async_io(Interest::READABLE, || {
                let mut control = RecvAncillaryBuffer::new(&mut space);
                let mut parts = [IoSliceMut::new(&mut buffer)];
                let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
                let RecvMsg { bytes, .. } =
                    recvmsg(stream.as_fd(), &mut parts, &mut control, flags)?;
                for message in control.drain() {
                    if let RecvAncillaryMessage::ScmRights(sent) = message {
                        fds.extend(sent);
                    }
                }
                Ok(bytes)
            })
            .await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        unread.extend_from_slice(&buffer[..count]);
        Ok(())
    }
}

fn own(member: &str) -> Method<'_> {
    Method {
        destination: "org.freedesktop.DBus",
        path: "/org/freedesktop/DBus",
        interface: "org.freedesktop.DBus",
        member,
    }
}

/// By the user that the kernel says we are, and with descriptors.
async fn authenticate(stream: &mut UnixStream) -> io::Result<()> {
    let user = rustix::process::geteuid().as_raw().to_string();
    let hex: String = user.bytes().map(|byte| format!("{byte:02x}")).collect();
    stream.write_all(format!("\0AUTH EXTERNAL {hex}\r\n").as_bytes()).await?;
    expect(stream, "OK ").await?;
    stream.write_all(b"NEGOTIATE_UNIX_FD\r\n").await?;
    expect(stream, "AGREE_UNIX_FD").await?;
    stream.write_all(b"BEGIN\r\n").await
}

async fn expect(stream: &mut UnixStream, wanted: &str) -> io::Result<()> {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        if line.len() > 512 {
            return Err(bad("a long line instead of an answer"));
        }
        line.push(stream.read_u8().await?);
    }
    let line = String::from_utf8_lossy(&line);
    match line.starts_with(wanted) {
        true => Ok(()),
        false => Err(bad(&format!("expected {wanted:?}, found {:?}", line.trim_end()))),
    }
}

#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn number(&mut self, number: u32) {
        self.align(4);
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u32);
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(0);
    }

    fn signature(&mut self, text: &str) {
        self.0.push(text.len() as u8);
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(0);
    }

    fn field(&mut self, kind: u8, signature: &str, text: &str) {
        self.align(8);
        self.0.push(kind);
        self.signature(signature);
        match signature {
            "g" => self.signature(text),
            _ => self.text(text),
        }
    }
}

fn encode(serial: u32, method: Method<'_>, args: &[Arg<'_>]) -> Vec<u8> {
    let (mut body, mut signature) = (Writer::default(), String::new());
    for arg in args {
        match arg {
            Arg::Text(text) => {
                signature.push('s');
                body.text(text);
            }
            Arg::Int(number) => {
                signature.push('i');
                body.number(number.cast_unsigned());
            }
        }
    }
    let mut fields = Writer::default();
    fields.field(PATH, "o", method.path);
    fields.field(INTERFACE, "s", method.interface);
    fields.field(MEMBER, "s", method.member);
    fields.field(DESTINATION, "s", method.destination);
    if !signature.is_empty() {
        fields.field(SIGNATURE, "g", &signature);
    }
    let mut out = Writer(vec![b'l', CALL, 0, 1]);
    out.number(body.0.len() as u32);
    out.number(serial);
    out.number(fields.0.len() as u32);
    // The fields begin at a multiple of eight, as they were written.
    out.0.extend_from_slice(&fields.0);
    out.align(8);
    out.0.extend_from_slice(&body.0);
    out.0
}

/// The length of the message that these bytes begin, once they tell it.
fn length(bytes: &[u8]) -> io::Result<Option<usize>> {
    let Some(head) = bytes.get(..16) else { return Ok(None) };
    let mut reader = Reader { bytes: head, at: 4, big: head[0] == b'B' };
    let body = reader.number()? as usize;
    reader.at = 12;
    let fields = reader.number()? as usize;
    if body > MESSAGE_MAX || fields > MESSAGE_MAX {
        return Err(bad("a message is too long"));
    }
    Ok(Some((16 + fields).next_multiple_of(8) + body))
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    big: bool,
}

impl Reader<'_> {
    fn take(&mut self, count: usize) -> io::Result<&[u8]> {
        let found = self.bytes.get(self.at..self.at.saturating_add(count));
        self.at = self.at.saturating_add(count);
        found.ok_or_else(|| bad("a message ends early"))
    }

    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn number(&mut self) -> io::Result<u32> {
        self.align(4);
        let big = self.big;
        let bytes: [u8; 4] = self.take(4)?.try_into().map_err(|_| bad("short"))?;
        Ok(if big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    fn long(&mut self) -> io::Result<u64> {
        self.align(8);
        let big = self.big;
        let bytes: [u8; 8] = self.take(8)?.try_into().map_err(|_| bad("short"))?;
        Ok(if big { u64::from_be_bytes(bytes) } else { u64::from_le_bytes(bytes) })
    }

    fn text(&mut self) -> io::Result<String> {
        let length = self.number()? as usize;
        let text = String::from_utf8_lossy(self.take(length)?).into_owned();
        self.take(1)?;
        Ok(text)
    }

    fn signature(&mut self) -> io::Result<String> {
        let length = self.take(1)?[0] as usize;
        let text = String::from_utf8_lossy(self.take(length)?).into_owned();
        self.take(1)?;
        Ok(text)
    }
}

fn decode(bytes: &[u8], fds: Vec<OwnedFd>) -> io::Result<Message> {
    let big = bytes.first() == Some(&b'B');
    let mut reader = Reader { bytes, at: 1, big };
    let mut message = Message { kind: reader.take(1)?[0], big, fds, ..Message::default() };
    reader.at = 4;
    let body = reader.number()? as usize;
    reader.at = 12;
    let end = 16 + reader.number()? as usize;
    while reader.at < end {
        reader.align(8);
        let kind = reader.take(1)?[0];
        match (kind, reader.signature()?.as_str()) {
            (INTERFACE, "s") => message.interface = reader.text()?,
            (MEMBER, "s") => message.member = reader.text()?,
            (ERROR_NAME, "s") => message.error = reader.text()?,
            (REPLY_SERIAL, "u") => message.reply_to = reader.number()?,
            (_, "s" | "o") => drop(reader.text()?),
            (_, "u") => drop(reader.number()?),
            (_, "g") => drop(reader.signature()?),
            (_, other) => return Err(bad(&format!("a header field of type {other:?}"))),
        }
    }
    let start = end.next_multiple_of(8);
    let found = bytes.get(start..start + body).ok_or_else(|| bad("a message ends early"))?;
    message.body = found.to_vec();
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a bus sends.
    fn answer(kind: u8, reply_to: u32, member: &str, signature: &str, body: &[u8]) -> Vec<u8> {
        let mut fields = Writer::default();
        if kind == SIGNAL {
            fields.field(PATH, "o", "/org/freedesktop/login1");
            fields.field(INTERFACE, "s", "org.freedesktop.login1.Manager");
            fields.field(MEMBER, "s", member);
        } else {
            fields.align(8);
            fields.0.push(REPLY_SERIAL);
            fields.signature("u");
            fields.number(reply_to);
        }
        if !signature.is_empty() {
            fields.field(SIGNATURE, "g", signature);
        }
        let mut out = Writer(vec![b'l', kind, 0, 1]);
        out.number(body.len() as u32);
        out.number(1);
        out.number(fields.0.len() as u32);
        out.0.extend_from_slice(&fields.0);
        out.align(8);
        out.0.extend_from_slice(body);
        out.0
    }

    #[test]
    fn a_call_is_read_as_it_was_written() {
        let method = Method {
            destination: "org.freedesktop.login1",
            path: "/org/freedesktop/login1",
            interface: "org.freedesktop.login1.Manager",
            member: "Inhibit",
        };
        let bytes = encode(7, method, &[Arg::Text("shutdown"), Arg::Int(-1)]);
        assert_eq!(length(&bytes[..15]).unwrap(), None);
        assert_eq!(length(&bytes).unwrap(), Some(bytes.len()));
        let message = decode(&bytes, Vec::new()).unwrap();
        assert_eq!((message.kind, message.member.as_str()), (CALL, "Inhibit"));
        let mut reader = message.reader();
        assert_eq!(reader.text().unwrap(), "shutdown");
        assert_eq!(reader.number().unwrap(), u32::MAX);
        assert!(reader.number().is_err(), "nothing follows");
    }

    #[test]
    fn answers_and_signals_are_told_apart() {
        let mut body = Writer::default();
        body.signature("t");
        body.align(8);
        body.0.extend_from_slice(&5_000_000u64.to_le_bytes());
        let found = decode(&answer(RETURN, 3, "", "v", &body.0), Vec::new()).unwrap();
        assert_eq!((found.reply_to, found.variant_u64().unwrap()), (3, 5_000_000));
        let signal = answer(SIGNAL, 0, "PrepareForShutdown", "b", &1u32.to_le_bytes());
        let found = decode(&signal, Vec::new()).unwrap();
        assert!(found.is_signal() && found.boolean().unwrap());
        assert!(found.descriptor().is_err());
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let mut long = encode(1, own("Hello"), &[]);
        long[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(length(&long).is_err());
        let good = answer(RETURN, 3, "", "b", &1u32.to_le_bytes());
        for end in 0..good.len() {
            assert!(decode(&good[..end], Vec::new()).is_err(), "{end}");
        }
    }
}
