//! Who has which pod address, kept in a file.
//!
//! Why so: the file is a log with one line per change, written by one `write` call, so the death
//! of the process at any moment leaves a readable file (a torn last line is dropped). It is not
//! synced: only a crash of the machine can lose lines, and that ends every pod too. Addresses never
//! used go first, then the ones released longest ago, so that a stale client rarely meets a new pod.
//!
//! Both families of a dual-stack pod share one index into their ranges. It touches no links.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use rustix::fs::{FlockOperation, flock};

#[derive(Debug, thiserror::Error)]
pub enum IpamError {
    #[error("pod address range {0} has no room for pods")]
    TooSmall(IpNet),
    #[error("pod address ranges must be one IPv4, one IPv6, or one of each, not {0:?}")]
    BadFamilies(Vec<IpNet>),
    #[error("open the address file {path}: {source}")]
    Open { path: PathBuf, source: io::Error },
    #[error("the address file {0} is in use by another process")]
    Locked(PathBuf),
    #[error("write the address file {path}: {source}")]
    Write { path: PathBuf, source: io::Error },
    #[error("no free pod address left in {0:?}")]
    Exhausted(Vec<IpNet>),
    #[error("the pod id {0:?} is empty or has blanks in it")]
    BadId(String),
}

/// The allocator. One process at a time: the file is locked.
#[derive(Debug)]
pub struct Ipam {
    ranges: Vec<IpNet>,
    path: PathBuf,
    log: File,
    _lock: File,
    held: BTreeMap<String, u32>,
    taken: BTreeSet<u32>,
    /// Released indexes, oldest release first.
    released: VecDeque<u32>,
    /// No index from here on was ever used.
    fresh: u32,
    last: u32,
    lines: usize,
}

/// Index 0 is the network's own address, index 1 the gateway's.
const FIRST_POD_INDEX: u32 = 2;

/// Host bits that are used at most: 2^16 pods is far above what one bridge can carry.
const MAX_HOST_BITS: u8 = 16;

/// Log lines before the file is rewritten: a few hundred KiB, rewritten in about a millisecond.
const MAX_LOG_LINES: usize = 8192;

impl Ipam {
    /// Opens or creates the file. What it says about addresses outside `ranges` is forgotten.
    pub fn open(path: impl Into<PathBuf>, ranges: &[IpNet]) -> Result<Self, IpamError> {
        let path = path.into();
        let last = check_ranges(ranges)?;
        let fail = |source| IpamError::Open { path: path.clone(), source };
        let lock_path = path.with_extension("lock");
        let lock = File::options().create(true).truncate(false).write(true).open(&lock_path);
        let lock = lock.map_err(fail)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| IpamError::Locked(path.clone()))?;
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
            Err(e) => return Err(fail(e)),
        };
        let log = File::options().create(true).append(true).open(&path).map_err(fail)?;
        let mut ipam = Ipam {
            ranges: ranges.iter().map(IpNet::trunc).collect(),
            log,
            _lock: lock,
            held: BTreeMap::new(),
            taken: BTreeSet::new(),
            released: VecDeque::new(),
            fresh: FIRST_POD_INDEX,
            last,
            lines: 0,
            path: path.clone(),
        };
        ipam.replay(&text);
        ipam.rewrite()?;
        Ok(ipam)
    }

    /// The pod's addresses, one per range: those it has, or new ones.
    pub fn allocate(&mut self, id: &str) -> Result<Vec<IpAddr>, IpamError> {
        if let Some(index) = self.held.get(id) {
            return Ok(self.addresses(*index));
        }
        if id.is_empty() || id.contains(char::is_whitespace) {
            return Err(IpamError::BadId(id.to_owned()));
        }
        let index = self.pick().ok_or_else(|| IpamError::Exhausted(self.ranges.clone()))?;
        self.append(&format!("+ {index} {id}\n"))?;
        self.hold(id, index);
        Ok(self.addresses(index))
    }

    /// Gives the pod's addresses back; says whether it had any.
    pub fn release(&mut self, id: &str) -> Result<bool, IpamError> {
        let Some(index) = self.held.get(id).copied() else { return Ok(false) };
        self.append(&format!("- {index}\n"))?;
        self.free(index);
        if self.lines > MAX_LOG_LINES {
            self.rewrite()?;
        }
        Ok(true)
    }

    /// The addresses a pod has.
    pub fn get(&self, id: &str) -> Option<Vec<IpAddr>> {
        self.held.get(id).map(|index| self.addresses(*index))
    }

    /// Every pod that has addresses.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.held.keys().map(String::as_str)
    }

    /// The first host address of each range, which the bridge has.
    pub fn gateways(&self) -> Vec<IpAddr> {
        self.addresses(FIRST_POD_INDEX - 1)
    }

    pub fn ranges(&self) -> &[IpNet] {
        &self.ranges
    }

    fn addresses(&self, index: u32) -> Vec<IpAddr> {
        self.ranges.iter().map(|range| nth(range, index)).collect()
    }

    fn pick(&self) -> Option<u32> {
        (self.fresh <= self.last).then_some(self.fresh).or_else(|| self.released.front().copied())
    }

    fn hold(&mut self, id: &str, index: u32) {
        self.released.retain(|other| *other != index);
        if index >= self.fresh {
            // Skipped indexes (a log of a larger range) count as released: they are still usable.
            self.released.extend(self.fresh..index);
            self.fresh = index + 1;
        }
        self.held.insert(id.to_owned(), index);
        self.taken.insert(index);
    }

    fn free(&mut self, index: u32) {
        self.held.retain(|_, held| *held != index);
        if self.taken.remove(&index) {
            self.released.push_back(index);
        }
    }

    fn replay(&mut self, text: &str) {
        // Without its newline the last line was torn; the allocation it meant was never answered.
        let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
        for line in whole.lines() {
            let mut words = line.split(' ');
            let (sign, index) = (words.next(), words.next().and_then(|word| word.parse().ok()));
            let Some(index) = index else { continue };
            let usable = (FIRST_POD_INDEX..=self.last).contains(&index);
            match (sign, words.next()) {
                (Some("+"), Some(id)) if usable && !self.taken.contains(&index) => {
                    self.hold(id, index);
                }
                (Some("-"), None) if usable => {
                    // A compacted log tells of released addresses whose taking it has dropped.
                    if !self.taken.contains(&index) {
                        self.hold("-", index);
                    }
                    self.free(index);
                }
                _ => {}
            }
        }
    }

    fn append(&mut self, line: &str) -> Result<(), IpamError> {
        let fail = |source| IpamError::Write { path: self.path.clone(), source };
        let before = self.log.metadata().map_err(fail)?.len();
        if let Err(e) = self.log.write_all(line.as_bytes()) {
            // A half-written line (a full disk) must not swallow the one after it.
            self.log.set_len(before).map_err(fail)?;
            return Err(fail(e));
        }
        self.lines += 1;
        Ok(())
    }

    /// Writes the present state as a new file and puts it in the old one's place.
    fn rewrite(&mut self) -> Result<(), IpamError> {
        let mut text = String::new();
        for index in &self.released {
            writeln!(text, "- {index}").expect("writing to a string cannot fail");
        }
        for (id, index) in &self.held {
            writeln!(text, "+ {index} {id}").expect("writing to a string cannot fail");
        }
        let temporary = self.path.with_extension("new");
        self.log = replace_file(&self.path, &temporary, &text)
            .map_err(|source| IpamError::Write { path: self.path.clone(), source })?;
        self.lines = text.lines().count();
        Ok(())
    }
}

fn replace_file(path: &Path, temporary: &Path, text: &str) -> io::Result<File> {
    let mut file = File::options().create(true).write(true).truncate(true).open(temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_data()?;
    std::fs::rename(temporary, path)?;
    File::options().append(true).open(path)
}

/// Checks the ranges and says the highest usable index in all of them.
fn check_ranges(ranges: &[IpNet]) -> Result<u32, IpamError> {
    let v4 = ranges.iter().filter(|range| range.addr().is_ipv4()).count();
    let v6 = ranges.len() - v4;
    if ranges.is_empty() || v4 > 1 || v6 > 1 {
        return Err(IpamError::BadFamilies(ranges.to_vec()));
    }
    let mut last = u32::MAX;
    for range in ranges {
        let bits = range.max_prefix_len() - range.prefix_len();
        // The highest address is IPv4's broadcast address.
        let highest = (1u32 << bits.min(MAX_HOST_BITS)).saturating_sub(2);
        if highest < FIRST_POD_INDEX {
            return Err(IpamError::TooSmall(*range));
        }
        last = last.min(highest);
    }
    Ok(last)
}

/// The address `index` places after the start of `range`.
pub(crate) fn nth(range: &IpNet, index: u32) -> IpAddr {
    match range {
        IpNet::V4(net) => {
            IpAddr::from((u32::from(net.network()).wrapping_add(index)).to_be_bytes())
        }
        IpNet::V6(net) => {
            IpAddr::from((u128::from(net.network()).wrapping_add(index.into())).to_be_bytes())
        }
    }
}

#[cfg(test)]
mod tests;
