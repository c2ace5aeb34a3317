//! The mark: from which segment on the log counts, and how far it was acknowledged.
//!
//! After a crash the last frame may be half there, which is right as long as nobody was told that
//! it is stored. The mark tells the two apart: it is written (not flushed) after every flush of the
//! log, so it survives the process, and trails behind only when the machine itself stops.
//!
//! Two slots in different blocks are written in turn, so that one of them is whole whatever
//! happens. What both must say before something irreversible is written to both and flushed.

use std::io;

use super::disk::{Disk, DiskFile};
use super::frame::{checksum, u32_at, u64_at};

pub(super) const NAME: &str = "mark";
/// The name until the folder is ready for use.
pub(super) const UNFINISHED: &str = "mark.new";
const MAGIC: [u8; 8] = *b"TRIMARK1";
const SLOT: usize = 64;
/// Slots lie in blocks of their own.
const APART: u64 = 4096;

/// What is certain about the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Mark {
    /// The oldest segment that counts.
    pub(super) first: u64,
    /// The segment written to, and up to where its frames were acknowledged.
    pub(super) segment: u64,
    pub(super) end: u64,
}

impl Mark {
    fn encode(&self, serial: u64) -> [u8; SLOT] {
        let mut bytes = [0; SLOT];
        bytes[..8].copy_from_slice(&MAGIC);
        let numbers = [serial, self.first, self.segment, self.end];
        for (at, number) in (8..).step_by(8).zip(numbers) {
            bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
        }
        let sum = checksum(0, &bytes[..SLOT - 4]);
        bytes[SLOT - 4..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// With its serial number.
    fn decode(bytes: &[u8]) -> Option<(u64, Mark)> {
        let sound = bytes.len() == SLOT
            && bytes[..8] == MAGIC
            && u32_at(bytes, SLOT - 4) == checksum(0, &bytes[..SLOT - 4]);
        let mark = || Mark {
            first: u64_at(bytes, 16),
            segment: u64_at(bytes, 24),
            end: u64_at(bytes, 32),
        };
        sound.then(|| (u64_at(bytes, 8), mark()))
    }
}

/// The mark and its file.
pub(super) struct MarkFile {
    file: Box<dyn DiskFile>,
    mark: Mark,
    /// Counts the writings; the slot with the higher one counts.
    serial: u64,
}

impl MarkFile {
    /// A new one under its unfinished name, which says: nothing was ever acknowledged here.
    pub(super) fn create(disk: &dyn Disk) -> io::Result<MarkFile> {
        let file = disk.create(UNFINISHED, APART + SLOT as u64)?;
        let mut mark = MarkFile { file, mark: Mark::default(), serial: 0 };
        mark.settle(Mark { first: 1, segment: 1, end: 0 })?;
        Ok(mark)
    }

    /// Absent when neither slot is readable.
    pub(super) fn open(disk: &dyn Disk) -> io::Result<Option<MarkFile>> {
        let file = disk.open(NAME)?;
        // What a process that was killed had written counts only once the disk has it.
        file.sync()?;
        let slots = [0, APART].map(|at| file.read_range(at, SLOT));
        let [one, two] = slots;
        let slots = [Mark::decode(&one?), Mark::decode(&two?)];
        if slots.contains(&None) && slots.iter().any(Option::is_some) {
            tracing::warn!(
                file = disk.path(NAME),
                "half of the mark is damaged; the other half counts"
            );
        }
        let newest = slots.into_iter().flatten().max_by_key(|(serial, _)| *serial);
        Ok(newest.map(|(serial, mark)| MarkFile { file, mark, serial }))
    }

    pub(super) fn get(&self) -> Mark {
        self.mark
    }

    /// Notes what was acknowledged, without a flush.
    pub(super) fn note(&mut self, segment: u64, end: u64) -> io::Result<()> {
        self.write(Mark { segment, end, ..self.mark })
    }

    fn write(&mut self, mark: Mark) -> io::Result<()> {
        self.serial += 1;
        self.mark = mark;
        self.file.write_at(&mark.encode(self.serial), self.serial % 2 * APART)
    }

    /// Makes both slots say `mark`, durably.
    pub(super) fn settle(&mut self, mark: Mark) -> io::Result<()> {
        for _ in 0..2 {
            self.write(mark)?;
            // One after the other: a power loss may spoil the slot being written.
            self.file.sync()?;
        }
        Ok(())
    }
}
