//! What the runtime remembers of sandboxes and containers across its own restarts: one file each.

use std::fs;
use std::path::{Path, PathBuf};

use prost::Message;

use crate::cri::{ContainerConfig, PodSandboxConfig};
use crate::error::{Error, IoContext, Result};
use crate::image::write_whole;
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

pub(crate) fn save(dir: &Path, record: &impl Message) -> Result<()> {
    fs::create_dir_all(dir).at("make", dir)?;
    write_whole(&dir.join(RECORD), &record.encode_to_vec())
}

/// All records below `dir`; a directory without one is what a crash left, and is removed.
pub(crate) fn load<T: Message + Default>(dir: &Path) -> Result<Vec<T>> {
    fs::create_dir_all(dir).at("make", dir)?;
    let mut records = Vec::new();
    for entry in fs::read_dir(dir).at("list", dir)?.flatten() {
        let path: PathBuf = entry.path().join(RECORD);
        match fs::read(&path) {
            Ok(bytes) => records.push(T::decode(&bytes[..]).map_err(|e| Error::Damaged {
                what: "record",
                path,
                message: e.to_string(),
            })?),
            Err(_) => crate::tree::remove(&entry.path()).at("remove", entry.path())?,
        }
    }
    Ok(records)
}
