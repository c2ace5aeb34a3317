//! Writing and reading netlink messages by hand: headers, attributes, nested attributes.
//!
//! The writer appends to one buffer, so a batch of thousands of messages is one allocation and one
//! send. Numbers of nf_tables and conntrack are big-endian on the wire.

/// Appends messages and attributes to a buffer.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

/// An open message or nest: the place where its length goes when it is closed.
#[derive(Debug)]
#[must_use]
pub struct Open(usize);

/// Set on the type of an attribute that holds attributes.
const NESTED: u16 = 1 << 15;

impl Writer {
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Begins a netfilter message: netlink header and `nfgenmsg`.
    pub fn netfilter(&mut self, kind: u16, flags: u16, sequence: u32, family: u8, id: u16) -> Open {
        let open = Open(self.bytes.len());
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        self.bytes.extend_from_slice(&[family, 0]);
        self.bytes.extend_from_slice(&id.to_be_bytes());
        open
    }

    /// Ends a message.
    pub fn end(&mut self, open: Open) {
        let length = u32::try_from(self.bytes.len() - open.0).expect("a message is below 4 GiB");
        self.bytes[open.0..open.0 + 4].copy_from_slice(&length.to_ne_bytes());
    }

    /// Or-s `flags` into a finished message that starts at `at`.
    pub fn add_flags(&mut self, at: usize, flags: u16) {
        let now = u16::from_ne_bytes([self.bytes[at + 6], self.bytes[at + 7]]) | flags;
        self.bytes[at + 6..at + 8].copy_from_slice(&now.to_ne_bytes());
    }

    pub fn nest(&mut self, kind: u16) -> Open {
        let open = Open(self.bytes.len());
        self.bytes.extend_from_slice(&0u16.to_ne_bytes());
        self.bytes.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        open
    }

    pub fn end_nest(&mut self, open: Open) {
        let length = u16::try_from(self.bytes.len() - open.0).expect("callers chunk long lists");
        self.bytes[open.0..open.0 + 2].copy_from_slice(&length.to_ne_bytes());
    }

    pub fn attr(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(value.len() + 4).expect("attribute values are short");
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    pub fn attr_u8(&mut self, kind: u16, value: u8) {
        self.attr(kind, &[value]);
    }

    pub fn attr_u16(&mut self, kind: u16, value: u16) {
        self.attr(kind, &value.to_be_bytes());
    }

    pub fn attr_u32(&mut self, kind: u16, value: u32) {
        self.attr(kind, &value.to_be_bytes());
    }

    pub fn attr_u64(&mut self, kind: u16, value: u64) {
        self.attr(kind, &value.to_be_bytes());
    }

    /// A string attribute with the final zero byte that the kernel expects.
    pub fn attr_str(&mut self, kind: u16, value: &str) {
        let length = u16::try_from(value.len() + 5).expect("names are short");
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value.as_bytes());
        self.bytes.push(0);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// Appends bytes that another writer has made (attributes prepared apart).
    pub fn append(&mut self, other: &Writer) {
        self.bytes.extend_from_slice(&other.bytes);
    }
}

/// Walks the attributes in `bytes`, as (type without flags, value). Stops at the first broken one.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let header = rest.first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & KIND_MASK;
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The first attribute of type `kind`.
pub fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

pub fn be_u16(value: &[u8]) -> Option<u16> {
    value.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

pub fn be_u32(value: &[u8]) -> Option<u32> {
    value.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

pub fn be_u64(value: &[u8]) -> Option<u64> {
    value.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

/// The text of a string attribute, without its final zero byte.
pub fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

/// Type bits without the "nested" and "network byte order" flags.
const KIND_MASK: u16 = 0x3fff;
