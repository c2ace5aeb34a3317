//! Messages on the wire: a flag, a length, and the message.

use std::pin::Pin;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::Response;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use prost::Message;

use crate::CallError;

/// Length of the compression flag and the length in front of a message.
const PREFIX: usize = 5;

pub(crate) fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut out = BytesMut::with_capacity(PREFIX + length);
    out.put_u8(0);
    out.put_u32(length as u32);
    message.encode_raw(&mut out);
    out.freeze()
}

/// Messages of one call, as they arrive.
pub struct Answers<A> {
    /// Names the peer in errors.
    peer: &'static str,
    message_max: usize,
    body: Pin<Box<Incoming>>,
    buffer: BytesMut,
    /// gRPC's verdict, from the head when there is no body.
    status: Option<(u32, String)>,
    kind: std::marker::PhantomData<fn() -> A>,
}

impl<A: Message + Default> Answers<A> {
    pub(crate) fn of(
        response: Response<Incoming>,
        peer: &'static str,
        message_max: usize,
    ) -> Result<Answers<A>, CallError> {
        if response.status() != http::StatusCode::OK {
            let code = response.status();
            return Err(CallError::Unreachable(format!(
                "{peer} cannot be reached: the peer is not {peer}: it answers HTTP {code}"
            )));
        }
        let status = verdict(response.headers());
        let (body, buffer) = (Box::pin(response.into_body()), BytesMut::new());
        Ok(Answers { peer, message_max, body, buffer, status, kind: std::marker::PhantomData })
    }

    fn lost(&self, error: impl std::fmt::Display) -> CallError {
        CallError::Lost(format!("the connection to {} was lost: {error}", self.peer))
    }

    /// The next message; absent at the end of a call that went well.
    pub async fn next(&mut self) -> Result<Option<A>, CallError> {
        loop {
            if let Some(message) = self.buffered()? {
                return Ok(Some(message));
            }
            match self.body.frame().await {
                None => return self.end(),
                Some(Err(error)) => return Err(self.lost(error)),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.buffer.extend_from_slice(&data),
                    Err(frame) => {
                        self.status = frame.trailers_ref().and_then(verdict).or(self.status.take());
                    }
                },
            }
        }
    }

    fn buffered(&mut self) -> Result<Option<A>, CallError> {
        let Some(length) = self.buffer.get(1..PREFIX).and_then(|b| b.first_chunk()) else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length) as usize;
        if length > self.message_max {
            return Err(self.lost(format!("a message of {length} bytes is too long")));
        }
        if self.buffer.len() < PREFIX + length {
            return Ok(None);
        }
        self.buffer.advance(PREFIX);
        let message = self.buffer.split_to(length).freeze();
        A::decode(message).map(Some).map_err(|error| self.lost(error))
    }

    fn end(&mut self) -> Result<Option<A>, CallError> {
        match self.status.take() {
            Some((0, _)) => Ok(None),
            Some((code, message)) => Err(CallError::Refused { code, message }),
            None => Err(self.lost("the answer broke off")),
        }
    }
}

fn verdict(headers: &http::HeaderMap) -> Option<(u32, String)> {
    let text = |name| headers.get(name).and_then(|v| v.to_str().ok());
    let code = text("grpc-status")?.parse().ok()?;
    Some((code, percent_decoded(text("grpc-message").unwrap_or(""))))
}

/// gRPC writes what is not printable ASCII as `%` and two hexadecimal digits.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let digits = tail.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        let decoded = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match decoded.filter(|_| *first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::percent_decoded;

    #[test]
    fn messages_of_errors_are_decoded() {
        assert_eq!(percent_decoded("plain"), "plain");
        assert_eq!(percent_decoded("a%0Ab %C3%A9"), "a\nb é");
        assert_eq!(percent_decoded("100% of %zz %4"), "100% of %zz %4");
    }
}
