//! A disk in memory that can fail, fill up and lose power.
//!
//! What was written but not flushed is lost or kept sector by sector when power goes; of unflushed
//! names a beginning is kept, as journaling file systems do.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use super::disk::{Disk, DiskFile};

/// What a disk writes at once.
const SECTOR: usize = 512;

/// No mark is longer; segments are, so that the two are told apart.
const MARK_END: usize = 4096 + 64;

/// Xorshift: repeatable from its seed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }
}

type Names = BTreeMap<String, usize>;

#[derive(Debug, Clone, Default)]
struct Content {
    durable: Vec<u8>,
    current: Vec<u8>,
    unflushed: Vec<(usize, Vec<u8>)>,
}

#[derive(Debug, Clone, Default)]
struct State {
    files: Vec<Content>,
    names: Names,
    /// States of the names since they were flushed, oldest first.
    names_since: Vec<Names>,
    /// Operations until the next fault; none when absent.
    fuse: Option<u64>,
    blown: bool,
    capacity: usize,
}

impl State {
    fn used(&self) -> usize {
        self.names.values().map(|id| self.files[*id].current.len()).sum()
    }

    /// Every changing operation passes here.
    fn burn(&mut self) -> io::Result<()> {
        match &mut self.fuse {
            Some(0) => self.blown = true,
            Some(left) => *left -= 1,
            None => {}
        }
        if self.blown { Err(io::Error::other("the simulated disk fails")) } else { Ok(()) }
    }

    fn id(&self, name: &str) -> io::Result<usize> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn changed_names(&mut self) {
        self.names_since.push(self.names.clone());
    }
}

/// Clones are the same disk.
#[derive(Debug, Clone)]
pub(super) struct SimDisk(Arc<Mutex<State>>);

impl SimDisk {
    pub(super) fn new(capacity: usize) -> SimDisk {
        let state = State { capacity, names_since: vec![Names::new()], ..State::default() };
        SimDisk(Arc::new(Mutex::new(state)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no test panics while holding it")
    }

    /// A copy with a life of its own.
    pub(super) fn fork(&self) -> SimDisk {
        SimDisk(Arc::new(Mutex::new(self.state().clone())))
    }

    /// All operations fail after `operations` more.
    pub(super) fn fail_after(&self, operations: u64) {
        self.state().fuse = Some(operations);
    }

    pub(super) fn set_capacity(&self, capacity: usize) {
        self.state().capacity = capacity;
    }

    /// The process was killed: the operating system still has everything.
    pub(super) fn restart_process(&self) {
        let mut state = self.state();
        (state.fuse, state.blown) = (None, false);
    }

    /// The machine stopped.
    pub(super) fn lose_power(&self, dice: &mut Dice) {
        self.restart_process();
        let mut state = self.state();
        for file in &mut state.files {
            for (at, bytes) in std::mem::take(&mut file.unflushed) {
                keep_some_sectors(&mut file.durable, at, &bytes, dice);
            }
            file.current = file.durable.clone();
        }
        let kept = dice.roll(state.names_since.len() as u64) as usize;
        state.names = state.names_since.swap_remove(kept);
        state.names_since = vec![state.names.clone()];
    }

    pub(super) fn names(&self) -> Vec<(String, usize)> {
        let state = self.state();
        state.names.iter().map(|(n, id)| (n.clone(), state.files[*id].current.len())).collect()
    }

    pub(super) fn flip(&self, name: &str, at: usize, with: u8) {
        let mut state = self.state();
        let id = state.id(name).expect("the file exists");
        state.files[id].current[at] ^= with;
    }

    pub(super) fn cut(&self, name: &str, size: usize) {
        let mut state = self.state();
        let id = state.id(name).expect("the file exists");
        state.files[id].current.truncate(size);
    }

    pub(super) fn forget(&self, name: &str) {
        self.state().names.remove(name);
    }
}

fn keep_some_sectors(durable: &mut [u8], at: usize, bytes: &[u8], dice: &mut Dice) {
    let mut done = 0;
    while done < bytes.len() {
        let from = at + done;
        let count = (SECTOR - from % SECTOR).min(bytes.len() - done);
        if dice.roll(2) == 0 {
            durable[from..from + count].copy_from_slice(&bytes[done..done + count]);
        }
        done += count;
    }
}

struct SimFile {
    disk: SimDisk,
    id: usize,
}

impl Disk for SimDisk {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        Ok(self.names().into_iter().map(|(name, size)| (name, size as u64)).collect())
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let id = self.state().id(name)?;
        Ok(Box::new(SimFile { disk: self.clone(), id }))
    }

    fn create(&self, name: &str, size: u64) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        state.burn()?;
        if state.used() + size as usize > state.capacity {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let zeros = vec![0; size as usize];
        state.files.push(Content { durable: zeros.clone(), current: zeros, unflushed: Vec::new() });
        let id = state.files.len() - 1;
        state.names.insert(name.into(), id);
        state.changed_names();
        Ok(Box::new(SimFile { disk: self.clone(), id }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.burn()?;
        let id = state.id(from)?;
        state.names.remove(from);
        state.names.insert(to.into(), id);
        state.changed_names();
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.burn()?;
        state.names.remove(name);
        state.changed_names();
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut state = self.state();
        state.burn()?;
        state.names_since = vec![state.names.clone()];
        Ok(())
    }

    fn available(&self) -> io::Result<u64> {
        let state = self.state();
        // What the log leaves to others comes on top: here there are none.
        Ok((state.capacity.saturating_sub(state.used()) + (1 << 20)) as u64)
    }

    fn path(&self, name: &str) -> String {
        format!("/sim/{name}")
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let state = self.disk.state();
        let rest = state.files[self.id].current.get(at as usize..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        let before = state.blown;
        let burnt = state.burn();
        // The write that meets the fault is half done.
        let kept = match (&burnt, before) {
            (Ok(()), _) => bytes.len(),
            (Err(_), false) => bytes.len() / 2,
            (Err(_), true) => 0,
        };
        let (at, bytes) = (at as usize, &bytes[..kept]);
        let file = &mut state.files[self.id];
        // A mark that was cut off grows again; a segment must never need to.
        if at < MARK_END && file.current.len() < MARK_END {
            file.current.resize(MARK_END, 0);
            file.durable.resize(MARK_END, 0);
        }
        assert!(at + kept <= file.current.len(), "written behind the space set aside");
        file.current[at..at + kept].copy_from_slice(bytes);
        file.unflushed.push((at, bytes.to_vec()));
        burnt
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        state.burn()?;
        let file = &mut state.files[self.id];
        file.durable = file.current.clone();
        file.unflushed.clear();
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.state().files[self.id].current.len() as u64)
    }
}
