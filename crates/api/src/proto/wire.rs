//! Protobuf's wire format: tags, varints, lengths (protobuf.dev/programming-guides/encoding).

/// Bytes that are no protobuf message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    #[error("proto: unexpected end of message")]
    Truncated,
    #[error("proto: integer overflow")]
    Overflow,
    #[error("proto: illegal wireType {0}")]
    WireType(u8),
    #[error("proto: wrong wireType")]
    Mismatch,
    #[error("proto: invalid UTF-8")]
    Utf8,
    #[error("proto: messages nested too deeply")]
    Depth,
}

/// One field's content.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    /// No type of the API has such a field: skipped wherever it stands.
    Fixed32,
}

impl<'a> Wire<'a> {
    pub(super) fn bytes(self) -> Result<&'a [u8], Malformed> {
        match self {
            Wire::Bytes(bytes) => Ok(bytes),
            _ => Err(Malformed::Mismatch),
        }
    }

    pub(super) fn text(self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Malformed::Utf8)
    }

    pub(super) fn varint(self) -> Result<u64, Malformed> {
        match self {
            Wire::Varint(n) => Ok(n),
            _ => Err(Malformed::Mismatch),
        }
    }
}

pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(rest: &'a [u8]) -> Reader<'a> {
        Reader { rest }
    }

    pub(super) fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.rest.split_first().ok_or(Malformed::Truncated)?;
            self.rest = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed::Overflow)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next field's number and content.
    pub(super) fn next(&mut self) -> Result<Option<(u32, Wire<'a>)>, Malformed> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let tag = u32::try_from(key >> 3).map_err(|_| Malformed::Overflow)?;
        let wire = match (key & 7) as u8 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(u64::from_le_bytes(
                self.take(8)?.try_into().map_err(|_| Malformed::Truncated)?,
            )),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| Malformed::Overflow)?;
                Wire::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Wire::Fixed32)?,
            other => return Err(Malformed::WireType(other)),
        };
        Ok(Some((tag, wire)))
    }
}

/// Writes the fields of one message.
#[derive(Debug, Default)]
pub struct Writer {
    out: Vec<u8>,
}

impl Writer {
    /// The message so far.
    pub fn written(&self) -> &[u8] {
        &self.out
    }

    fn raw_varint(&mut self, mut n: u64) {
        while n >= 0x80 {
            self.out.push(n as u8 | 0x80);
            n >>= 7;
        }
        self.out.push(n as u8);
    }

    pub fn varint(&mut self, tag: u32, n: u64) {
        self.raw_varint(u64::from(tag) << 3);
        self.raw_varint(n);
    }

    pub fn fixed64(&mut self, tag: u32, n: u64) {
        self.raw_varint(u64::from(tag) << 3 | 1);
        self.out.extend_from_slice(&n.to_le_bytes());
    }

    /// A length-delimited field: text, bytes or a message.
    pub fn bytes(&mut self, tag: u32, bytes: &[u8]) {
        self.raw_varint(u64::from(tag) << 3 | 2);
        self.raw_varint(bytes.len() as u64);
        self.out.extend_from_slice(bytes);
    }
}
