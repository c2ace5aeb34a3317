//! One file of the log: a header, then frames one after the other.
//!
//! A segment keeps its size from the moment it is set aside until it is given back; what lies
//! behind its last frame means nothing. Where the frames of a segment end is said by its successor's
//! header, so that a segment cannot lose its tail unnoticed.

use super::frame::{self, Head, checksum, u32_at, u64_at};

/// Bytes of a segment. Small enough that a young cluster takes little and that space comes back
/// in small pieces, large enough that changing over (three flushes) is rare.
pub(super) const SEGMENT: usize = 8 << 20;
/// Bytes of a segment's header.
pub(super) const HEADER: usize = 64;
/// Says "our log" and the format's version.
const MAGIC: [u8; 8] = *b"TRIREME1";

/// What a segment says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) number: u64,
    /// Enters every checksum of this segment.
    pub(super) salt: u64,
    /// Sequence of its first frame.
    pub(super) sequence: u64,
    /// The store's revision when it was begun.
    pub(super) revision: u64,
    /// Where the frames of the segment before it end.
    pub(super) previous_end: u64,
}

impl Header {
    pub(super) fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(&MAGIC);
        let numbers = [self.number, self.salt, self.sequence, self.revision, self.previous_end];
        for (at, number) in (8..).step_by(8).zip(numbers) {
            bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
        }
        let sum = checksum(0, &bytes[..HEADER - 4]);
        bytes[HEADER - 4..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Whether this claims to be a header of a version that this one does not know.
    pub(super) fn is_foreign(bytes: &[u8]) -> bool {
        bytes.starts_with(&MAGIC[..MAGIC.len() - 1]) && !bytes.starts_with(&MAGIC)
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Header> {
        let bytes = bytes.get(..HEADER)?;
        let sound =
            bytes[..8] == MAGIC && u32_at(bytes, HEADER - 4) == checksum(0, &bytes[..HEADER - 4]);
        sound.then(|| Header {
            number: u64_at(bytes, 8),
            salt: u64_at(bytes, 16),
            sequence: u64_at(bytes, 24),
            revision: u64_at(bytes, 32),
            previous_end: u64_at(bytes, 40),
        })
    }
}

pub(super) fn name(number: u64) -> String {
    format!("{number:012}.log")
}

pub(super) fn number(name: &str) -> Option<u64> {
    name.strip_suffix(".log")?.parse().ok()
}

/// The frames of a segment as far as they are whole and follow each other.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// Where each frame's payload starts, and its head.
    pub(super) frames: Vec<(usize, Head)>,
    pub(super) end: usize,
    /// Sequence that the next frame would have.
    pub(super) sequence: u64,
}

pub(super) fn scan(bytes: &[u8], header: &Header) -> Scan {
    let mut scan = Scan { frames: Vec::new(), end: HEADER, sequence: header.sequence };
    while let Some((head, payload)) =
        bytes.get(scan.end..).and_then(|b| frame::whole(b, header.salt))
    {
        let complete = frame::entries(payload).count() == head.records as usize;
        if head.sequence != scan.sequence || !complete {
            break;
        }
        scan.frames.push((scan.end + frame::HEAD, head));
        scan.end += frame::HEAD + head.length;
        scan.sequence += 1;
    }
    scan
}

/// Whether a whole frame lies anywhere behind `from`. Only one frame is under way at a time, so
/// such a one proves that what is unreadable before it had been written whole.
pub(super) fn frame_behind(bytes: &[u8], from: usize, header: &Header) -> bool {
    let rest = bytes.get(from + 1..).unwrap_or_default();
    memchr::memmem::find_iter(rest, &frame::MAGIC).any(|at| {
        let found = frame::whole(&rest[at..], header.salt);
        found.is_some_and(|(head, _)| head.sequence > header.sequence)
    })
}
