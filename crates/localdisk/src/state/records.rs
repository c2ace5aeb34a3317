//! What is known of a volume and of a snapshot.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Whether the disk's blocks are taken when a volume is made, or when they are first written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Allocation {
    #[default]
    Thin,
    Thick,
}

/// What a volume was made of.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Origin {
    #[default]
    Nothing,
    Snapshot(String),
    Volume(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Volume {
    pub(crate) id: String,
    /// As the request had it.
    pub(crate) name: String,
    /// Bytes that users see.
    pub(crate) size: u64,
    pub(crate) origin: Origin,
    pub(crate) allocation: Allocation,
    /// The file system that was made in it.
    pub(crate) file_system: Option<String>,
    /// A file system is being made: what is in the volume is nobody's data.
    #[serde(default)]
    pub(crate) formatting: bool,
    /// Bytes that it shares with what it was made of, for which room is kept all the same.
    #[serde(default)]
    pub(crate) shared: u64,
    /// Published to the node by the Controller service; whether read-only.
    #[serde(default)]
    pub(crate) published_read_only: Option<bool>,
    /// Made for block access, which no file system is made for.
    #[serde(default)]
    pub(crate) block: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Snapshot {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) source: String,
    pub(crate) size: u64,
    pub(crate) file_system: Option<String>,
    #[serde(default)]
    pub(crate) block: bool,
    /// Seconds and nanoseconds since 1970.
    pub(crate) created: (i64, i32),
    #[serde(default)]
    pub(crate) shared: u64,
    /// The group that it was made with.
    #[serde(default)]
    pub(crate) group: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Group {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) created: (i64, i32),
    /// Ids of the snapshots, in the order of the volumes.
    pub(crate) snapshots: Vec<String>,
    pub(crate) sources: Vec<String>,
}

const ID_MAX: usize = 64;

/// Whether this can be an id: one path component without surprises.
pub(crate) fn is_id(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    (1..=ID_MAX).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(plain)
}

/// The id of what has this name: the name itself, so that operators find `pvc-…` on disk, where it can be one.
pub(crate) fn id_of(name: &str) -> String {
    if is_id(name) && !name.starts_with("hashed-") {
        return name.to_owned();
    }
    let digest = Sha256::digest(name.as_bytes());
    let hex: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("hashed-{hex}")
}

/// Seconds and nanoseconds since 1970.
pub(crate) fn now() -> (i64, i32) {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let since = since.unwrap_or_default();
    (since.as_secs() as i64, since.subsec_nanos() as i32)
}
