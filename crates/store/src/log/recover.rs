//! Opening a log: what is in the folder, whether it is whole, and what it says.
//!
//! Nothing is repaired and nothing is guessed. The one thing that may be incomplete is the last
//! frame, and only behind the place up to which the mark says writes were acknowledged.

use std::collections::VecDeque;

use super::compact::Fault;
use super::disk::{Disk, LOCK};
use super::frame::{self, Builder, Entry};
use super::index::Index;
use super::mark::{self, Mark, MarkFile};
use super::segment::{self, Header, Scan};
use super::{Active, Log, LogEngine, Sealed};
use crate::engine::{EngineError, Record};

/// Put there by file systems at their root.
const LOST_AND_FOUND: &str = "lost+found";

/// What a folder holds, by meaning.
#[derive(Debug, Default)]
struct Content {
    mark: bool,
    unfinished: bool,
    segments: Vec<u64>,
    spares: Vec<(String, u64)>,
    foreign: Option<String>,
}

fn content(files: Vec<(String, u64)>) -> Content {
    let mut content = Content::default();
    for (name, size) in files {
        match name.as_str() {
            LOCK | LOST_AND_FOUND => {}
            mark::NAME => content.mark = true,
            mark::UNFINISHED => content.unfinished = true,
            spare if spare.starts_with("spare-") => content.spares.push((name, size)),
            other => match segment::number(other) {
                Some(number) => content.segments.push(number),
                None => content.foreign = Some(name),
            },
        }
    }
    content.segments.sort_unstable();
    content
}

fn open_error(disk: &dyn Disk, detail: impl ToString) -> EngineError {
    EngineError::Open { path: disk.path(""), detail: detail.to_string() }
}

fn damaged(disk: &dyn Disk, name: &str, detail: impl Into<String>) -> EngineError {
    EngineError::Damaged { path: disk.path(name), detail: detail.into() }
}

impl LogEngine {
    /// Opens or begins the log on `disk`.
    pub(super) fn on(disk: Box<dyn Disk>, segment: usize) -> Result<LogEngine, EngineError> {
        let found = content(disk.list().map_err(|e| open_error(&*disk, e))?);
        if let Some(name) = found.foreign {
            let detail = format!(
                "it holds {name}, so this is no store of this version; move the folder away to start empty"
            );
            return Err(open_error(&*disk, detail));
        }
        if !found.mark {
            if !found.segments.is_empty() && !found.unfinished {
                return Err(damaged(&*disk, mark::NAME, "the file is missing"));
            }
            let begun = begin(&*disk, segment);
            begun.map_err(|e| open_error(&*disk, format!("{e}; see to the disk and its space")))?;
        }
        let mark = MarkFile::open(&*disk).map_err(|e| open_error(&*disk, e))?;
        let mark = mark.ok_or_else(|| damaged(&*disk, mark::NAME, "neither half is readable"))?;
        Ok(LogEngine { disk, segment, mark, log: None })
    }

    /// Reads the log and calls `visit` with what counts, newest first.
    pub(super) fn recover(&mut self, visit: &mut dyn FnMut(Record)) -> Result<(), EngineError> {
        let found = content(self.disk.list().map_err(|e| open_error(&*self.disk, e))?);
        let mark = self.mark.get();
        let (old, numbers): (Vec<u64>, Vec<u64>) =
            found.segments.iter().partition(|number| **number < mark.first);
        self.check_numbers(&numbers, &mark)?;
        let mut index = Index::default();
        let mut sealed = VecDeque::new();
        let mut active: Option<(Active, u64)> = None;
        let mut successor: Option<Header> = None;
        for number in numbers.into_iter().rev() {
            let (bytes, header) = self.read_segment(number)?;
            let scan = segment::scan(&bytes, &header);
            self.check_end(&bytes, &header, &scan, successor.as_ref())?;
            self.visit_frames(&bytes, &scan, &header, &mut index, visit)?;
            match successor {
                Some(_) => sealed.push_front(Sealed { number, end: scan.end as u64 }),
                None => active = Some(self.reopen(&header, &scan)?),
            }
            successor = Some(header);
        }
        let (active, revision) = active.expect("the numbers were checked, so there is one");
        index.settle();
        let spares = Vec::new();
        self.log = Some(Log {
            index,
            sealed,
            active,
            spares,
            walk: None,
            revision,
            builder: Builder::default(),
        });
        self.make_ready(&old, found.spares)
    }

    /// Segments follow each other from the first that counts to the one written to, or one further
    /// when the process ended between beginning it and noting that.
    fn check_numbers(&self, numbers: &[u64], mark: &Mark) -> Result<(), EngineError> {
        let missing = (mark.first..=mark.segment).find(|n| numbers.binary_search(n).is_err());
        if let Some(number) = missing {
            return Err(damaged(&*self.disk, &segment::name(number), "the file is missing"));
        }
        match numbers.last() {
            Some(last) if *last > mark.segment + 1 => {
                let detail = format!("it ends with segment {}, yet {last} exists", mark.segment);
                Err(damaged(&*self.disk, mark::NAME, detail))
            }
            _ => Ok(()),
        }
    }

    fn read_segment(&self, number: u64) -> Result<(Vec<u8>, Header), EngineError> {
        let name = segment::name(number);
        let read = || {
            let file = self.disk.open(&name)?;
            let size = file.size()?;
            file.read_range(0, size as usize)
        };
        let bytes = read().map_err(|e| self.read_error(&name, Fault::Io(e)))?;
        match Header::decode(&bytes) {
            Some(header) if header.number == number => Ok((bytes, header)),
            None if Header::is_foreign(&bytes) => {
                Err(damaged(&*self.disk, &name, "it was written by another version"))
            }
            _ => Err(self.read_error(&name, Fault::Damaged(0))),
        }
    }

    fn check_end(
        &self,
        bytes: &[u8],
        header: &Header,
        scan: &Scan,
        successor: Option<&Header>,
    ) -> Result<(), EngineError> {
        let mark = self.mark.get();
        let whole = match successor {
            Some(next) => scan.end as u64 == next.previous_end && scan.sequence == next.sequence,
            None => {
                let acknowledged = if header.number == mark.segment { mark.end } else { 0 };
                scan.end as u64 >= acknowledged && !segment::frame_behind(bytes, scan.end, header)
            }
        };
        let name = segment::name(header.number);
        if whole { Ok(()) } else { Err(self.read_error(&name, Fault::Damaged(scan.end as u64))) }
    }

    fn visit_frames(
        &self,
        bytes: &[u8],
        scan: &Scan,
        header: &Header,
        index: &mut Index,
        visit: &mut dyn FnMut(Record),
    ) -> Result<(), EngineError> {
        for (at, head) in scan.frames.iter().rev() {
            let entries: Vec<Entry<'_>> = frame::entries(&bytes[*at..*at + head.length]).collect();
            for entry in entries.iter().rev() {
                if !index.meet(entry) {
                    continue;
                }
                let Ok(key) = String::from_utf8(entry.key.to_vec()) else {
                    let name = segment::name(header.number);
                    return Err(self.read_error(&name, Fault::Damaged(*at as u64)));
                };
                let value = entry.value.map(<[u8]>::to_vec);
                visit(Record { key, value, revision: entry.revision });
            }
        }
        Ok(())
    }

    /// The last segment, ready to be written to, and the store's revision. What a process that was
    /// killed had written but not flushed is flushed now, before anyone reads it.
    fn reopen(&self, header: &Header, scan: &Scan) -> Result<(Active, u64), EngineError> {
        let name = segment::name(header.number);
        let io = |e| self.write_error(&name, &e);
        let file = self.disk.open(&name).map_err(io)?;
        file.sync().map_err(io)?;
        let revision = scan.frames.last().map_or(header.revision, |(_, head)| head.revision);
        let active = Active { file, header: *header, end: scan.end, sequence: scan.sequence };
        Ok((active, revision))
    }

    fn make_ready(&mut self, old: &[u64], spares: Vec<(String, u64)>) -> Result<(), EngineError> {
        for (name, size) in spares {
            if size == self.segment as u64 {
                self.log().spares.push(name);
            } else {
                self.disk.remove(&name).map_err(|e| self.write_error(&name, &e))?;
            }
        }
        for number in old {
            let name = segment::name(*number);
            self.set_aside(&name).map_err(|e| self.write_error(&name, &e))?;
        }
        self.replenish()?;
        // A process that was killed may have left names that the disk does not know yet.
        self.disk.sync_names().map_err(|e| self.write_error("", &e))?;
        let active = &self.log().active;
        let (number, end) = (active.header.number, active.end as u64);
        let cut_off =
            active.file.size().map_err(|e| self.write_error("", &e))? < self.segment as u64;
        let mark = Mark { segment: number, end, ..self.mark.get() };
        self.mark.settle(mark).map_err(|e| self.write_error(mark::NAME, &e))?;
        // Its space is not set aside any more, so nothing can be appended to it.
        if cut_off { self.change_over() } else { Ok(()) }
    }
}

/// Makes an empty log. The mark gets its name last: until then nothing was acknowledged here.
fn begin(disk: &dyn Disk, size: usize) -> std::io::Result<()> {
    MarkFile::create(disk)?;
    let file = disk.create(&segment::name(1), size as u64)?;
    let salt = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), size);
    let header = Header { number: 1, salt, sequence: 1, revision: 0, previous_end: 0 };
    file.write_at(&header.encode(), 0)?;
    file.sync()?;
    disk.sync_names()?;
    disk.rename(mark::UNFINISHED, mark::NAME)?;
    disk.sync_names()
}
