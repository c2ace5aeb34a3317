//! A frame: the records of one flush, and the checksums that prove it whole.
//!
//! Checksums begin with the segment's salt, which no client ever sees: neither what a reused
//! segment still holds nor anything a client can put into a value passes for a frame.
//!
//! Layout, little-endian. Head: magic (4), records (4), payload bytes (4), payload checksum (4),
//! sequence (8), revision (8), head checksum (4). Each record: revision (8), key bytes (4), value
//! bytes (4, [`DELETED`] for a deletion), key, value.

use crate::engine::Record;

/// The first byte occurs in no UTF-8 text.
pub(super) const MAGIC: [u8; 4] = [0xf5, b'T', b'R', 1];
/// Bytes of a frame's head.
pub(super) const HEAD: usize = 36;
/// Bytes in front of a record's key.
const RECORD_HEAD: usize = 16;
/// In place of a value's length.
const DELETED: u32 = u32::MAX;

/// What a frame's head says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) records: u32,
    /// Payload bytes behind the head.
    pub(super) length: usize,
    payload_sum: u32,
    /// Counts the frames of the whole log.
    pub(super) sequence: u64,
    /// The store's revision as of this frame.
    pub(super) revision: u64,
}

/// A record as it lies in a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    pub(super) revision: u64,
    pub(super) key: &'a [u8],
    pub(super) value: Option<&'a [u8]>,
}

impl Entry<'_> {
    pub(super) fn size(&self) -> usize {
        RECORD_HEAD + self.key.len() + self.value.map_or(0, <[u8]>::len)
    }
}

impl<'a> From<&'a Record> for Entry<'a> {
    fn from(record: &'a Record) -> Entry<'a> {
        let value = record.value.as_deref();
        Entry { revision: record.revision, key: record.key.as_bytes(), value }
    }
}

/// A frame being filled. The buffer is reused from flush to flush.
#[derive(Debug, Default)]
pub(super) struct Builder {
    bytes: Vec<u8>,
    records: u32,
}

impl Builder {
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.resize(HEAD, 0);
        self.records = 0;
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records == 0
    }

    pub(super) fn push(&mut self, entry: Entry<'_>) {
        self.records += 1;
        let length = entry.value.map_or(DELETED, |v| v.len() as u32);
        self.bytes.extend_from_slice(&entry.revision.to_le_bytes());
        self.bytes.extend_from_slice(&(entry.key.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes.extend_from_slice(entry.key);
        self.bytes.extend_from_slice(entry.value.unwrap_or_default());
    }

    /// The finished frame.
    pub(super) fn seal(&mut self, salt: u64, sequence: u64, revision: u64) -> &[u8] {
        let (head, payload) = self.bytes.split_at_mut(HEAD);
        head[..4].copy_from_slice(&MAGIC);
        head[4..8].copy_from_slice(&self.records.to_le_bytes());
        head[8..12].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        head[12..16].copy_from_slice(&checksum(salt, payload).to_le_bytes());
        head[16..24].copy_from_slice(&sequence.to_le_bytes());
        head[24..32].copy_from_slice(&revision.to_le_bytes());
        let sum = checksum(salt, &head[..32]);
        head[32..].copy_from_slice(&sum.to_le_bytes());
        &self.bytes
    }
}

pub(super) fn checksum(salt: u64, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&salt.to_le_bytes());
    hasher.update(bytes);
    hasher.finalize()
}

/// The number at `at`; the caller has checked that it is there.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..].first_chunk().map_or(0, |b| u64::from_le_bytes(*b))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..].first_chunk().map_or(0, |b| u32::from_le_bytes(*b))
}

/// Reads a head at the start of `bytes`.
pub(super) fn head(bytes: &[u8], salt: u64) -> Option<Head> {
    let bytes = bytes.get(..HEAD)?;
    let sound = bytes[..4] == MAGIC && u32_at(bytes, 32) == checksum(salt, &bytes[..32]);
    sound.then(|| Head {
        records: u32_at(bytes, 4),
        length: u32_at(bytes, 8) as usize,
        payload_sum: u32_at(bytes, 12),
        sequence: u64_at(bytes, 16),
        revision: u64_at(bytes, 24),
    })
}

impl Head {
    /// Whether `payload` is what was written.
    pub(super) fn fits(&self, payload: &[u8], salt: u64) -> bool {
        payload.len() == self.length && self.payload_sum == checksum(salt, payload)
    }
}

/// A whole frame at the start of `bytes`: its head and payload.
pub(super) fn whole(bytes: &[u8], salt: u64) -> Option<(Head, &[u8])> {
    let head = head(bytes, salt)?;
    let payload = bytes.get(HEAD..HEAD + head.length)?;
    head.fits(payload, salt).then_some((head, payload))
}

/// The record at the start of `payload`, whose checksum held.
pub(super) fn entry(payload: &[u8]) -> Option<Entry<'_>> {
    let head = payload.get(..RECORD_HEAD)?;
    let (key, value) = (u32_at(head, 8) as usize, u32_at(head, 12));
    let rest = &payload[RECORD_HEAD..];
    let value = match value {
        DELETED => None,
        length => Some(rest.get(key..key.checked_add(length as usize)?)?),
    };
    Some(Entry { revision: u64_at(head, 0), key: rest.get(..key)?, value })
}

/// All records of a payload; fewer than its head says when it is malformed.
pub(super) fn entries(payload: &[u8]) -> impl Iterator<Item = Entry<'_>> {
    let mut rest = payload;
    std::iter::from_fn(move || {
        let entry = entry(rest)?;
        rest = &rest[entry.size()..];
        Some(entry)
    })
}
