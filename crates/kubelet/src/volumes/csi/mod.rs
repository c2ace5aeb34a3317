//! CSI: volumes of drivers that run on the node and have registered with the kubelet.
//!
//! | file | it |
//! |---|---|
//! | `registration.rs`, `node_info.rs` | a driver comes and goes; the CSINode object and the Node's annotation |
//! | `drivers.rs` | the registered drivers, and calls to them |
//! | `object.rs` | what the CSIDriver object says |
//! | `request.rs`, `names.rs` | names, paths and messages. Pure |
//! | `attach.rs` | waits until the volume is attached |
//! | `mount.rs`, `block.rs`, `expand.rs` | into a pod |
//! | `teardown.rs`, `data.rs` | out of it, by what is found on the disk |

mod attach;
mod block;
mod data;
mod drivers;
mod expand;
mod mount;
mod names;
mod node_info;
mod object;
pub(crate) mod registration;
mod request;
mod stats;
mod teardown;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use jiff::Timestamp;

use super::plugin::{Failed, Ready, SetUp, VolumePlugin};
use super::spec::Spec;
use crate::kubelet::Shared;

pub(crate) use node_info::run as run_node_info;
pub(crate) use stats::{VolumeFigures, of_pod as figures_of_pod};

/// Upstream's name of the plugin.
pub(crate) const NAME: &str = "kubernetes.io/csi";

/// What the agent knows while it runs; after a restart it is asked of the drivers again.
#[derive(Debug, Default)]
pub(crate) struct State {
    drivers: drivers::Drivers,
    /// Unique names of volumes that this process had staged.
    staged: Mutex<HashSet<String>>,
    /// Volumes of pods that this process had published, by the pod's uid and the volume's name.
    published: Mutex<HashMap<(String, String), Published>>,
}

/// A volume that is in a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Published {
    /// When the driver wants to be called again.
    again_at: Option<Timestamp>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn is_staged(&self, unique: &str) -> bool {
        lock(&self.staged).contains(unique)
    }

    fn set_staged(&self, unique: &str, is: bool) {
        let mut staged = lock(&self.staged);
        match is {
            true => staged.insert(unique.to_owned()),
            false => staged.remove(unique),
        };
    }

    fn published(&self, uid: &str, volume: &str) -> Option<Published> {
        lock(&self.published).get(&(uid.to_owned(), volume.to_owned())).copied()
    }

    fn set_published(&self, uid: &str, volume: &str, is: Option<Published>) {
        let key = (uid.to_owned(), volume.to_owned());
        let mut published = lock(&self.published);
        match is {
            Some(is) => published.insert(key, is),
            None => published.remove(&key),
        };
    }
}

/// As upstream's messages of this plugin begin.
fn said(text: impl std::fmt::Display) -> String {
    format!("{NAME}: {text}")
}

pub(crate) struct Csi;

#[async_trait]
impl VolumePlugin for Csi {
    fn name(&self) -> &'static str {
        NAME
    }

    fn supports(&self, spec: &Spec) -> bool {
        spec.volume.csi.is_some() || spec.persistent_csi().is_some()
    }

    fn supports_block(&self) -> bool {
        true
    }

    fn supports_mount_options(&self) -> bool {
        true
    }

    async fn set_up(&self, of: &SetUp<'_>) -> Result<Ready, Failed> {
        if of.spec.is_block() { block::set_up(of).await } else { mount::set_up(of).await }
    }

    async fn tear_down(&self, shared: &Arc<Shared>, uid: &str) -> Result<(), String> {
        teardown::pod(shared, uid).await
    }
}

/// Volumes that an earlier run of the agent left mounted count as in use until they are taken down.
pub(super) fn found_in_use(root: &Path) -> Vec<String> {
    data::of_all_pods(root).into_iter().filter_map(|found| found.unique()).collect()
}
