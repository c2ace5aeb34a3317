//! The embedded engine: an append-only log of checksummed frames.
//!
//! The whole state is in memory above, so the engine needs no look-ups: it must make a group of
//! writes durable with one flush, read everything back at start, and notice damage. None of the
//! ready-made engines measured (README.md beside this crate) does the last: fjall and SQLite's WAL
//! take damage for the end of the log and drop acknowledged writes in silence, redb does not look
//! at its checksums after an orderly end.
//!
//! - A commit is one frame, appended to the active segment and flushed ([`frame`], [`segment`]).
//! - Segments are set aside in advance, so a full disk is noticed before anything is written, and
//!   two spare ones let deletions and compaction go on then ([`space`]).
//! - When more than half of the log is dead, the live records of the oldest segment move to its
//!   end in small steps, and the segment becomes a spare ([`compact`]).
//! - The mark tells a half-written last frame from a damaged one ([`mark`], [`recover`]).

mod compact;
mod disk;
mod frame;
mod index;
mod mark;
mod recover;
mod segment;
mod space;

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::Path;

use self::compact::Walk;
use self::disk::{Disk, DiskFile, Folder};
use self::frame::{Builder, Entry};
use self::index::Index;
use self::mark::{Mark, MarkFile};
use self::segment::{HEADER, Header};
use crate::engine::{Engine, EngineError, Record, Room};

/// A log in a folder.
pub struct LogEngine {
    disk: Box<dyn Disk>,
    /// Bytes of a segment; smaller in tests, so that they see many.
    segment: usize,
    mark: MarkFile,
    /// Absent until it was read.
    log: Option<Log>,
}

/// What is known of the log while it is open.
struct Log {
    index: Index,
    /// Segments that are written to no more, oldest first.
    sealed: VecDeque<Sealed>,
    active: Active,
    /// Names of segments that are set aside.
    spares: Vec<String>,
    /// Compaction of the oldest segment, when one is under way.
    walk: Option<Walk>,
    revision: u64,
    builder: Builder,
}

struct Sealed {
    number: u64,
    /// Where its frames end.
    end: u64,
}

/// The segment written to.
struct Active {
    file: Box<dyn DiskFile>,
    header: Header,
    end: usize,
    /// Of the next frame.
    sequence: u64,
}

impl std::fmt::Debug for LogEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LogEngine({})", self.disk.path(""))
    }
}

impl LogEngine {
    /// Opens the log in `folder`, or begins one when the folder is missing or empty.
    pub fn open(folder: &Path) -> Result<LogEngine, EngineError> {
        let disk = Folder::lock(folder)
            .map_err(|detail| EngineError::Open { path: folder.display().to_string(), detail })?;
        LogEngine::on(Box::new(disk), segment::SEGMENT)
    }

    fn loaded(&mut self) -> Result<(), EngineError> {
        match self.log {
            Some(_) => Ok(()),
            None => self.recover(&mut |_| ()),
        }
    }

    /// The log, which is loaded before anything else is done.
    fn log(&mut self) -> &mut Log {
        self.log.as_mut().expect("loaded before use")
    }

    fn write_error(&self, name: &str, error: &io::Error) -> EngineError {
        let path = self.disk.path(name);
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => EngineError::Full { path },
            _ => {
                let detail = format!("{error}; see to the disk, then restart");
                EngineError::Commit { path, detail }
            }
        }
    }

    /// Appends the builder's frame and flushes it.
    fn flush(&mut self, revision: u64) -> Result<(), EngineError> {
        let size = self.log().builder.len();
        if size + HEADER > self.segment {
            let detail = format!("{size} bytes in one group, more than a segment holds");
            return Err(EngineError::Commit { path: self.disk.path(""), detail });
        }
        if self.log().active.end + size > self.segment {
            self.change_over()?;
        }
        let log = self.log.as_mut().expect("loaded before use");
        let active = &mut log.active;
        let frame = log.builder.seal(active.header.salt, active.sequence, revision);
        let number = active.header.number;
        // A frame that is half there is none, so failing here for want of space changes nothing;
        // after a failed flush nobody knows what the disk holds.
        let written = active.file.write_at(frame, active.end as u64);
        let flushed = if written.is_ok() { active.file.sync() } else { Ok(()) };
        if let Err(error) = written {
            return Err(self.write_error(&segment::name(number), &error));
        }
        if let Err(error) = flushed {
            let detail = format!("{error}; see to the disk, then restart");
            return Err(EngineError::Commit {
                path: self.disk.path(&segment::name(number)),
                detail,
            });
        }
        let log = self.log();
        let active = &mut log.active;
        active.end += size;
        active.sequence += 1;
        log.revision = revision;
        let end = active.end as u64;
        self.mark.note(number, end).map_err(|e| self.write_error(mark::NAME, &e))
    }

    /// Begins the next segment. Its header and name are durable before the mark names it, and the
    /// mark is before the first frame: a segment that was written to can never be overlooked.
    fn change_over(&mut self) -> Result<(), EngineError> {
        if self.log().spares.is_empty() {
            self.replenish()?;
        }
        let path = self.disk.path("");
        let log = self.log.as_mut().expect("loaded before use");
        let old = &log.active;
        let header = Header {
            number: old.header.number + 1,
            salt: RandomState::new().hash_one(old.header.number),
            sequence: old.sequence,
            revision: log.revision,
            previous_end: old.end as u64,
        };
        let spare = log.spares.pop().ok_or(EngineError::Full { path })?;
        let name = segment::name(header.number);
        let begun = begin(&*self.disk, &spare, &name, &header);
        let file = begun.map_err(|e| self.write_error(&name, &e))?;
        let log = self.log();
        let active = Active { file, header, end: HEADER, sequence: header.sequence };
        let old = std::mem::replace(&mut log.active, active);
        log.sealed.push_back(Sealed { number: old.header.number, end: old.end as u64 });
        let mark = Mark { segment: header.number, end: HEADER as u64, ..self.mark.get() };
        self.mark.settle(mark).map_err(|e| self.write_error(mark::NAME, &e))
    }
}

fn begin(
    disk: &dyn Disk,
    spare: &str,
    name: &str,
    header: &Header,
) -> io::Result<Box<dyn DiskFile>> {
    let file = disk.open(spare)?;
    file.write_at(&header.encode(), 0)?;
    file.sync()?;
    disk.rename(spare, name)?;
    disk.sync_names()?;
    Ok(file)
}

impl Engine for LogEngine {
    fn load(&mut self, visit: &mut dyn FnMut(Record)) -> Result<u64, EngineError> {
        self.recover(visit)?;
        Ok(self.log().revision)
    }

    fn room(&mut self, bytes: usize) -> Result<Room, EngineError> {
        self.loaded()?;
        self.find_room(bytes)
    }

    fn commit(&mut self, batch: &[Record]) -> Result<(), EngineError> {
        self.loaded()?;
        self.log().builder.clear();
        let retires = self.assist(batch)?;
        let log = self.log();
        batch.iter().for_each(|record| log.builder.push(record.into()));
        let revision = batch.last().map_or(log.revision, |record| record.revision);
        if let Err(error) = self.flush(revision) {
            // What compaction had put into this frame is still to be moved.
            self.log().walk = None;
            return Err(error);
        }
        let log = self.log();
        batch.iter().for_each(|record| log.index.put(&Entry::from(record)));
        if retires { self.retire_oldest() } else { Ok(()) }
    }

    fn size(&self) -> u64 {
        let segments = self.log.as_ref().map_or(0, |log| log.sealed.len() + 1 + log.spares.len());
        (segments * self.segment) as u64
    }

    fn tidy(&mut self) -> Result<bool, EngineError> {
        self.loaded()?;
        self.replenish()?;
        if self.is_sparse() {
            self.compaction_step(compact::STEP)?;
        }
        Ok(self.is_sparse())
    }
}

#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;
