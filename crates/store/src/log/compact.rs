//! Compaction: the live records of the oldest segment are appended again, then it is given back.
//!
//! Always the oldest one, because then a deletion found in it can be dropped: nothing older is
//! left that it would have to hide. Copies travel in the frames of ordinary commits, or in frames
//! of their own while nobody writes; a copy keeps its revision.

use std::io;

use super::disk::DiskFile;
use super::frame::{self, Builder};
use super::index::Index;
use super::segment::{self, Header};
use super::{LogEngine, mark};
use crate::engine::{EngineError, Record};

/// Bytes looked at in one step: a millisecond or two, so that a write hardly waits for it.
pub(super) const STEP: usize = 1 << 20;
/// A commit looks at this many times its own bytes. With half of the oldest segment dead, twice
/// as much would already keep pace.
const PACE: usize = 4;
/// And at this many more, so that small commits make progress.
const PACE_MIN: usize = 64 << 10;

/// A reader of one sealed segment.
pub(super) struct Walk {
    name: String,
    file: Box<dyn DiskFile>,
    header: Header,
    /// Where the next frame starts, and where the last one ends.
    at: u64,
    end: u64,
    payload: Vec<u8>,
    /// How far the payload has been looked at.
    seen: usize,
}

/// Why a segment could not be read on.
pub(super) enum Fault {
    Io(io::Error),
    /// Unreadable from this byte on.
    Damaged(u64),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Fault {
        Fault::Io(error)
    }
}

impl Walk {
    fn finished(&self) -> bool {
        self.seen == self.payload.len() && self.at == self.end
    }

    /// Puts what is live into `builder`, until `budget` bytes were looked at, the builder holds
    /// `space` bytes, or all was seen.
    fn step(
        &mut self,
        index: &Index,
        builder: &mut Builder,
        budget: usize,
        space: usize,
    ) -> Result<(), Fault> {
        let mut looked_at = 0;
        while looked_at < budget && !self.finished() {
            if self.seen == self.payload.len() {
                self.next_frame()?;
                continue;
            }
            let entry = frame::entry(&self.payload[self.seen..]).ok_or(Fault::Damaged(self.at))?;
            if index.is_live(&entry) {
                if builder.len() + entry.size() > space {
                    return Ok(());
                }
                builder.push(entry);
            }
            self.seen += entry.size();
            looked_at += entry.size();
        }
        Ok(())
    }

    fn next_frame(&mut self) -> Result<(), Fault> {
        let head = self.file.read_range(self.at, frame::HEAD)?;
        let head = frame::head(&head, self.header.salt).ok_or(Fault::Damaged(self.at))?;
        let payload = self.file.read_range(self.at + frame::HEAD as u64, head.length)?;
        if !head.fits(&payload, self.header.salt) {
            return Err(Fault::Damaged(self.at));
        }
        self.at += (frame::HEAD + head.length) as u64;
        self.payload = payload;
        self.seen = 0;
        Ok(())
    }
}

impl LogEngine {
    /// Whether so much of the log is dead that it is to be compacted.
    pub(super) fn is_sparse(&mut self) -> bool {
        let slack = 2 * self.segment as u64;
        let log = self.log();
        !log.sealed.is_empty() && log.used_bytes() > 2 * log.index.live_bytes() + slack
    }

    /// Adds copies to the frame of a commit; whether they were the oldest segment's last ones.
    pub(super) fn assist(&mut self, batch: &[Record]) -> Result<bool, EngineError> {
        let bytes: usize = batch.iter().map(|r| frame::Entry::from(r).size()).sum();
        if !self.is_sparse() || bytes > self.segment / 2 {
            return Ok(false);
        }
        let space = self.segment - segment::HEADER - bytes;
        self.copy((PACE * bytes + PACE_MIN).min(self.segment / 4), space)
    }

    /// A step of compaction in a frame of its own.
    pub(super) fn compaction_step(&mut self, budget: usize) -> Result<(), EngineError> {
        self.log().builder.clear();
        let finished = self.copy(budget.min(self.segment / 4), self.segment - segment::HEADER)?;
        if !self.log().builder.is_empty() {
            let revision = self.log().revision;
            if let Err(error) = self.flush(revision) {
                self.log().walk = None;
                return Err(error);
            }
        }
        if finished { self.retire_oldest() } else { Ok(()) }
    }

    fn copy(&mut self, budget: usize, space: usize) -> Result<bool, EngineError> {
        let mut walk = match self.log().walk.take() {
            Some(walk) => walk,
            None => self.walk_oldest()?,
        };
        let log = self.log();
        match walk.step(&log.index, &mut log.builder, budget, space) {
            Ok(()) => {
                let finished = walk.finished();
                log.walk = Some(walk);
                Ok(finished)
            }
            Err(fault) => Err(self.read_error(&walk.name, fault)),
        }
    }

    fn walk_oldest(&mut self) -> Result<Walk, EngineError> {
        let oldest = self.log().sealed.front().map(|s| (s.number, s.end));
        let (number, end) = oldest.expect("compaction starts only with a sealed segment");
        let name = segment::name(number);
        let open = || -> Result<Walk, Fault> {
            let file = self.disk.open(&name)?;
            let bytes = file.read_range(0, segment::HEADER)?;
            let header = Header::decode(&bytes).ok_or(Fault::Damaged(0))?;
            let at = segment::HEADER as u64;
            Ok(Walk { name: name.clone(), file, header, at, end, payload: Vec::new(), seen: 0 })
        };
        open().map_err(|fault| self.read_error(&name, fault))
    }

    pub(super) fn read_error(&self, name: &str, fault: Fault) -> EngineError {
        let path = self.disk.path(name);
        match fault {
            Fault::Io(error) => {
                let detail = format!("{error}; see to the disk, then restart");
                EngineError::Read { path, detail }
            }
            Fault::Damaged(at) => {
                EngineError::Damaged { path, detail: format!("unreadable from byte {at} on") }
            }
        }
    }

    /// Gives the oldest segment back, all of whose live records are elsewhere by now. The mark says
    /// so before its file gets another meaning.
    pub(super) fn retire_oldest(&mut self) -> Result<(), EngineError> {
        let log = self.log();
        log.walk = None;
        let Some(oldest) = log.sealed.pop_front() else { return Ok(()) };
        let settled = self.mark.settle(mark::Mark { first: oldest.number + 1, ..self.mark.get() });
        settled.map_err(|e| self.write_error(mark::NAME, &e))?;
        let name = segment::name(oldest.number);
        self.set_aside(&name).map_err(|e| self.write_error(&name, &e))
    }
}
