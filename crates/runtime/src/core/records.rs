//! What the runtime remembers of sandboxes and containers across its own restarts: one file each.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, mpsc};
use std::time::Duration;

use prost::Message;
use sha2::{Digest, Sha256};

use crate::cri::{ContainerConfig, PodSandboxConfig};
use crate::error::{IoContext, Result};
use crate::wire::{Plan, Run};

pub(crate) const RECORD: &str = "record";

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SandboxRecord {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) config: Option<PodSandboxConfig>,
    #[prost(int64, tag = "3")]
    pub(crate) created_at: i64,
    #[prost(bool, tag = "4")]
    pub(crate) ready: bool,
    #[prost(string, repeated, tag = "5")]
    pub(crate) ips: Vec<String>,
    #[prost(string, tag = "6")]
    pub(crate) handler: String,
    /// Whether the network must still be given back.
    #[prost(bool, tag = "7")]
    pub(crate) attached: bool,
    #[prost(string, tag = "8")]
    pub(crate) hostname: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ContainerRecord {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(string, tag = "2")]
    pub(crate) sandbox_id: String,
    #[prost(message, optional, tag = "3")]
    pub(crate) config: Option<ContainerConfig>,
    #[prost(int64, tag = "4")]
    pub(crate) created_at: i64,
    #[prost(string, tag = "5")]
    pub(crate) image_id: String,
    #[prost(string, tag = "6")]
    pub(crate) image_ref: String,
    #[prost(string, repeated, tag = "7")]
    pub(crate) layers: Vec<String>,
    #[prost(message, optional, tag = "8")]
    pub(crate) plan: Option<Plan>,
    #[prost(string, tag = "9")]
    pub(crate) stop_signal: String,
    #[prost(string, tag = "10")]
    pub(crate) cgroup: String,
    /// Set when it has been started (also when the start failed).
    #[prost(message, optional, tag = "11")]
    pub(crate) run: Option<Run>,
    #[prost(string, tag = "12")]
    pub(crate) reason: String,
    #[prost(string, tag = "13")]
    pub(crate) message: String,
}

impl SandboxRecord {
    pub(crate) fn config(&self) -> PodSandboxConfig {
        self.config.clone().unwrap_or_default()
    }
}

impl ContainerRecord {
    pub(crate) fn config(&self) -> ContainerConfig {
        self.config.clone().unwrap_or_default()
    }

    pub(crate) fn running(&self) -> bool {
        self.run.as_ref().is_some_and(|r| !r.ended)
    }
}

/// A record knows which directory is its own.
pub(crate) trait Record: Message + Default {
    fn id(&self) -> &str;
}

impl Record for SandboxRecord {
    fn id(&self) -> &str {
        &self.id
    }
}

impl Record for ContainerRecord {
    fn id(&self) -> &str {
        &self.id
    }
}

/// Field 15 with 32 bytes in it, behind all others: what was written before it, hashed.
const SEAL: [u8; 2] = [(15 << 3) | 2, 32];
const SEAL_BYTES: usize = 32;

fn sealed(record: &impl Message) -> Vec<u8> {
    let mut bytes = record.encode_to_vec();
    let hash = Sha256::digest(&bytes);
    bytes.extend(SEAL);
    bytes.extend(hash);
    bytes
}

fn unsealed<T: Record>(bytes: &[u8], id: &str) -> std::result::Result<T, String> {
    let torn = || "it was not written to its end".to_owned();
    let length = bytes.len().checked_sub(SEAL_BYTES + SEAL.len()).ok_or_else(torn)?;
    let (body, seal) = bytes.split_at(length);
    if seal[..2] != SEAL || seal[2..] != *Sha256::digest(body) {
        return Err(torn());
    }
    let record = T::decode(body).map_err(|e| e.to_string())?;
    match record.id() == id {
        true => Ok(record),
        false => Err("it is another one's".into()),
    }
}

/// Replaces the record as a whole. It is on the disk soon after; should the power fail before, no process
/// lives that it could tell of, and a torn record is recognised by its seal.
pub(crate) fn save(dir: &Path, record: &impl Message) -> Result<()> {
    fs::create_dir_all(dir).at("make", dir)?;
    let path = dir.join(RECORD);
    let part = path.with_extension(format!("part-{}", uuid::Uuid::new_v4().simple()));
    fs::write(&part, sealed(record)).and_then(|()| fs::rename(&part, &path)).at("write", &path)?;
    settle_soon(dir);
    Ok(())
}

/// Longest that a record waits for its way to the disk: longer than a pod's start.
const SETTLE_AFTER: Duration = Duration::from_secs(1);

/// Directories whose records go to the disk, away from the start of a pod, which would wait for it.
static UNSETTLED: LazyLock<mpsc::Sender<PathBuf>> = LazyLock::new(|| {
    let (sender, receiver) = mpsc::channel::<PathBuf>();
    let work = move || {
        while let Ok(first) = receiver.recv() {
            // A sync in the middle of a pod's start would hold up what it writes next.
            std::thread::sleep(SETTLE_AFTER);
            let all: BTreeSet<PathBuf> =
                std::iter::once(first).chain(receiver.try_iter()).collect();
            all.iter().for_each(|dir| settle(dir));
        }
    };
    let spawned = std::thread::Builder::new().name("records".to_owned()).spawn(work);
    if let Err(error) = spawned {
        tracing::warn!(%error, "records reach the disk when the kernel sees fit");
    }
    sender
});

fn settle_soon(dir: &Path) {
    // Without the thread the kernel does it, later.
    let _gone = UNSETTLED.send(dir.to_owned());
}

fn settle(dir: &Path) {
    let sync = |path: &Path| fs::File::open(path)?.sync_all();
    let parent = dir.parent().unwrap_or(dir);
    let done = sync(&dir.join(RECORD)).and_then(|()| sync(dir)).and_then(|()| sync(parent));
    match done {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, dir = %dir.display(), "record not synced");
        }
        _ => {}
    }
}

/// What was found below a directory.
pub(crate) struct Loaded<T> {
    pub(crate) records: Vec<T>,
    /// Ids whose records are damaged. They were put aside with all that they have.
    pub(crate) damaged: Vec<String>,
}

/// All records below `dir`. A directory without one is what a crash left, and is removed; one whose
/// record is damaged goes to `aside`. A record that cannot be read now is an error, and nothing is touched.
pub(crate) fn load<T: Record>(dir: &Path, aside: &Path) -> Result<Loaded<T>> {
    fs::create_dir_all(dir).at("make", dir)?;
    let mut loaded = Loaded { records: Vec::new(), damaged: Vec::new() };
    for entry in fs::read_dir(dir).at("list", dir)? {
        let entry = entry.at("list", dir)?;
        let id = entry.file_name().to_string_lossy().into_owned();
        let path = entry.path().join(RECORD);
        match fs::read(&path) {
            Ok(bytes) => match unsealed(&bytes, &id) {
                Ok(record) => loaded.records.push(record),
                Err(why) => {
                    tracing::error!(record = %path.display(), why, "damaged record put aside");
                    fs::create_dir_all(aside).at("make", aside)?;
                    let place = aside.join(&id);
                    crate::tree::remove(&place).at("remove", &place)?;
                    fs::rename(entry.path(), &place).at("put aside", entry.path())?;
                    loaded.damaged.push(id);
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                crate::tree::remove(&entry.path()).at("remove", entry.path())?;
            }
            Err(error) => return Err(error).at("read", &path),
        }
    }
    Ok(loaded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sandbox(id: &str) -> SandboxRecord {
        SandboxRecord { id: id.into(), ready: true, ..SandboxRecord::default() }
    }

    struct Place {
        _dir: tempfile::TempDir,
        records: PathBuf,
        aside: PathBuf,
    }

    fn place() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let (records, aside) = (dir.path().join("records"), dir.path().join("aside"));
        for id in ["a", "b"] {
            save(&records.join(id), &sandbox(id)).unwrap();
            fs::write(records.join(id).join("layer"), "content").unwrap();
        }
        Place { _dir: dir, records, aside }
    }

    fn load(place: &Place) -> Result<Loaded<SandboxRecord>> {
        super::load(&place.records, &place.aside)
    }

    #[test]
    fn records_come_back_and_directories_without_one_go() {
        let place = place();
        fs::create_dir_all(place.records.join("half/upper")).unwrap();
        let mut found = load(&place).unwrap().records;
        found.sort_by(|a, b| a.id.cmp(&b.id));
        assert_eq!(found, [sandbox("a"), sandbox("b")]);
        assert!(!place.records.join("half").exists());
    }

    #[test]
    fn a_torn_record_is_put_aside_at_whatever_byte_it_ends() {
        let whole = sealed(&sandbox("a"));
        for length in 0..whole.len() {
            let place = place();
            fs::write(place.records.join("a").join(RECORD), &whole[..length]).unwrap();
            let loaded = load(&place).unwrap();
            assert_eq!((loaded.records.len(), loaded.damaged), (1, vec!["a".to_owned()]));
            assert!(place.aside.join("a/layer").exists() && !place.records.join("a").exists());
        }
    }

    #[test]
    fn a_record_with_a_block_that_never_came_is_put_aside() {
        const BLOCK: usize = 512;
        let hostname = "x".repeat(5 * BLOCK);
        let whole = sealed(&SandboxRecord { hostname, ..sandbox("a") });
        for start in (0..whole.len()).step_by(BLOCK) {
            let place = place();
            let mut bytes = whole.clone();
            let end = (start + BLOCK).min(bytes.len());
            bytes[start..end].fill(0);
            fs::write(place.records.join("a").join(RECORD), bytes).unwrap();
            assert_eq!(load(&place).unwrap().damaged, ["a"]);
        }
    }

    #[test]
    fn a_record_of_another_is_not_trusted() {
        let place = place();
        fs::copy(place.records.join("b").join(RECORD), place.records.join("a").join(RECORD))
            .unwrap();
        assert_eq!(load(&place).unwrap().damaged, ["a"]);
    }

    #[test]
    fn what_cannot_be_read_is_left_alone() {
        let place = place();
        let record = place.records.join("a").join(RECORD);
        fs::remove_file(&record).unwrap();
        // Reading a directory fails otherwise than by its absence.
        fs::create_dir(&record).unwrap();
        assert!(load(&place).is_err());
        assert!(place.records.join("a/layer").exists());
    }
}
