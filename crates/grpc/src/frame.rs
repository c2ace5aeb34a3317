//! Messages on the wire, in both directions: a flag, a length, and the message.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;

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

/// Why what came is no message.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("a message of {length} bytes is too long (at most {max})")]
    Long { length: usize, max: usize },
    #[error("a message is compressed, which nobody asked for")]
    Compressed,
    #[error("{0}")]
    Malformed(#[from] prost::DecodeError),
}

/// What has come of a call's messages.
#[derive(Debug)]
pub(crate) struct Frames {
    buffer: BytesMut,
    max: usize,
}

impl Frames {
    /// Of messages of at most `max` bytes.
    pub(crate) fn new(max: usize) -> Frames {
        Frames { buffer: BytesMut::new(), max }
    }

    pub(crate) fn push(&mut self, data: &[u8]) {
        self.buffer.extend_from_slice(data);
    }

    /// The next message that is whole.
    pub(crate) fn next<M: Message + Default>(&mut self) -> Result<Option<M>, FrameError> {
        let Some(([flag], rest)) = self.buffer.split_first_chunk() else { return Ok(None) };
        let Some(length) = rest.first_chunk() else { return Ok(None) };
        let length = u32::from_be_bytes(*length) as usize;
        if *flag != 0 {
            return Err(FrameError::Compressed);
        }
        if length > self.max {
            return Err(FrameError::Long { length, max: self.max });
        }
        if self.buffer.len() < PREFIX + length {
            return Ok(None);
        }
        self.buffer.advance(PREFIX);
        Ok(Some(M::decode(self.buffer.split_to(length).freeze())?))
    }
}

/// gRPC writes what is not printable ASCII as `%` and two hexadecimal digits.
pub(crate) fn percent_decoded(text: &str) -> String {
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

/// The reverse of [`percent_decoded`].
pub(crate) fn percent_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{FrameError, Frames, framed, percent_decoded, percent_encoded};

    #[test]
    fn messages_of_errors_are_decoded() {
        assert_eq!(percent_decoded("plain"), "plain");
        assert_eq!(percent_decoded("a%0Ab %C3%A9"), "a\nb é");
        assert_eq!(percent_decoded("100% of %zz %4"), "100% of %zz %4");
        for text in ["", "100 % é\n\u{7f}"] {
            assert_eq!(percent_decoded(&percent_encoded(text)), text);
        }
        assert_eq!(percent_encoded("a\nb %"), "a%0Ab %25");
    }

    #[test]
    fn messages_come_whole_however_they_are_cut() {
        let (mut frames, mut came) = (Frames::new(8), Vec::new());
        for byte in framed(&"two".to_owned()).iter().chain(&framed(&"more".to_owned())[..]) {
            frames.push(&[*byte]);
            came.extend(frames.next::<String>().unwrap());
        }
        assert_eq!(came, ["two", "more"]);
    }

    #[test]
    fn what_is_long_compressed_or_no_message_is_refused() {
        let of = |bytes: &[u8]| {
            let mut frames = Frames::new(8);
            frames.push(bytes);
            frames.next::<String>()
        };
        assert_eq!(of(&[0, 0, 0, 0, 9]), Err(FrameError::Long { length: 9, max: 8 }));
        assert_eq!(of(&[1, 0, 0, 0, 0]), Err(FrameError::Compressed));
        assert!(matches!(of(&[0, 0, 0, 0, 1, 0xff]), Err(FrameError::Malformed(_))));
    }
}
