//! Space: segments set aside in advance, and what may still be written when the disk is full.
//!
//! While fewer than [`RESERVE`] spare segments can be had, writing goes down in steps: first what
//! grows the data is refused, then every update, at last deletions, when there is just enough left
//! for compaction to turn dead records into free space. Segments that compaction frees are used
//! again without asking the file system.

use std::io;

use super::{Log, LogEngine, compact};
use crate::engine::{EngineError, Room};

/// Spare segments to hold ready.
const RESERVE: usize = 2;
/// Spare segments kept for use; more are given back to the file system.
const KEPT: usize = 3;
/// Left to others on the disk when segments are set aside.
const MARGIN: u64 = 1 << 20;

impl Log {
    /// Bytes of the log's segments that hold frames, live or dead.
    pub(super) fn used_bytes(&self) -> u64 {
        self.sealed.iter().map(|s| s.end).sum::<u64>() + self.active.end as u64
    }

    fn dead_bytes(&self) -> u64 {
        self.used_bytes().saturating_sub(self.index.live_bytes())
    }
}

impl LogEngine {
    /// Sets segments aside as far as the disk has room for them.
    pub(super) fn replenish(&mut self) -> Result<(), EngineError> {
        while self.log().spares.len() < RESERVE {
            match self.set_aside_new() {
                Ok(true) => {}
                Ok(false) => break,
                Err(e) if is_full(&e) => break,
                Err(e) => return Err(self.write_error("", &e)),
            }
        }
        Ok(())
    }

    fn set_aside_new(&mut self) -> io::Result<bool> {
        let size = self.segment as u64;
        if self.disk.available()? < size + MARGIN {
            return Ok(false);
        }
        let taken = &self.log().spares;
        let name = (0..).map(spare_name).find(|name| !taken.contains(name));
        let name = name.unwrap_or_default();
        self.disk.create(&name, size)?;
        self.log().spares.push(name);
        Ok(true)
    }

    /// Turns a segment that no longer counts into a spare one, or gives it back.
    pub(super) fn set_aside(&mut self, name: &str) -> io::Result<()> {
        let whole = self.disk.open(name)?.size()? == self.segment as u64;
        if !whole || self.log().spares.len() >= KEPT {
            return self.disk.remove(name);
        }
        let taken = &self.log().spares;
        let spare = (0..).map(spare_name).find(|name| !taken.contains(name)).unwrap_or_default();
        self.disk.rename(name, &spare)?;
        self.log().spares.push(spare);
        Ok(())
    }

    /// What may be written, with `bytes` waiting to be.
    pub(super) fn find_room(&mut self, bytes: usize) -> Result<Room, EngineError> {
        self.replenish()?;
        if self.log().spares.len() >= RESERVE {
            return Ok(Room::Plenty);
        }
        self.reclaim()?;
        let (segment, log) = (self.segment, self.log());
        let rest = segment - log.active.end;
        // A frame that does not fit into the rest of the active segment leaves it unused.
        let rest = if bytes > rest { 0 } else { rest };
        let left = (rest + log.spares.len() * segment).saturating_sub(bytes);
        Ok(match log.spares.len() {
            RESERVE.. => Room::Plenty,
            _ if left >= segment * 3 / 2 => Room::NoGrowth,
            _ if left >= segment * 5 / 4 => Room::Deletions,
            _ => Room::Nothing,
        })
    }

    /// Compacts one segment, if enough is dead for that to lead anywhere.
    fn reclaim(&mut self) -> Result<(), EngineError> {
        let segment = self.segment as u64;
        let log = self.log();
        let Some(oldest) = log.sealed.front().map(|s| s.number) else { return Ok(()) };
        if log.dead_bytes() < (segment / 2).max(log.used_bytes() / 16) {
            return Ok(());
        }
        while self.log().sealed.front().is_some_and(|s| s.number == oldest) {
            self.compaction_step(compact::STEP)?;
        }
        Ok(())
    }
}

pub(super) fn spare_name(n: u64) -> String {
    format!("spare-{n}")
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
