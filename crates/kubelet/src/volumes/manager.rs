//! Which volumes of which pods are ready, and who works on one of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OwnedMutexGuard;

use super::csi;
use super::mounter::{Mounter, System};

/// A pod's volume outside of the directories that the kubelet fills itself.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    place: PathBuf,
    is_block: bool,
    /// The name that all pods' uses of the same PersistentVolume share.
    unique: Option<String>,
}

/// The volumes of all pods on the node.
#[derive(Debug)]
pub(crate) struct Manager {
    pods: Mutex<HashMap<String, BTreeMap<String, Entry>>>,
    locks: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    in_use: Mutex<BTreeSet<String>>,
    mounter: Box<dyn Mounter>,
    pub(crate) csi: csi::State,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Manager {
    /// With what an earlier run of the agent left mounted.
    pub(crate) fn new(root: &Path) -> Manager {
        Manager {
            pods: Mutex::default(),
            locks: Mutex::default(),
            in_use: Mutex::new(csi::found_in_use(root).into_iter().collect()),
            mounter: Box::new(System),
            csi: csi::State::default(),
        }
    }

    pub(super) fn mounter(&self) -> &dyn Mounter {
        self.mounter.as_ref()
    }

    pub(super) fn note(
        &self,
        uid: &str,
        volume: &str,
        place: PathBuf,
        is_block: bool,
        unique: Option<String>,
    ) {
        let entry = Entry { place, is_block, unique };
        lock(&self.pods).entry(uid.to_owned()).or_default().insert(volume.to_owned(), entry);
    }

    /// Where a file system of the pod is mounted.
    pub(crate) fn directory(&self, uid: &str, volume: &str) -> Option<PathBuf> {
        let pods = lock(&self.pods);
        pods.get(uid)?.get(volume).filter(|e| !e.is_block).map(|e| e.place.clone())
    }

    /// The device of a raw block volume of the pod.
    pub(crate) fn device(&self, uid: &str, volume: &str) -> Option<PathBuf> {
        let pods = lock(&self.pods);
        pods.get(uid)?.get(volume).filter(|e| e.is_block).map(|e| e.place.clone())
    }

    /// Whether a pod other than this one has the volume.
    pub(super) fn is_used_elsewhere(&self, uid: &str, unique: &str) -> bool {
        let pods = lock(&self.pods);
        let mut others = pods.iter().filter(|(other, _)| *other != uid);
        others.any(|(_, volumes)| volumes.values().any(|e| e.unique.as_deref() == Some(unique)))
    }

    pub(super) fn forget(&self, uid: &str) {
        lock(&self.pods).remove(uid);
    }

    /// One works on a volume at a time, whichever pod it is for.
    pub(super) async fn exclusive(&self, volume: &str) -> OwnedMutexGuard<()> {
        let own = {
            let mut locks = lock(&self.locks);
            locks.retain(|_, l| Arc::strong_count(l) > 1);
            locks.entry(volume.to_owned()).or_default().clone()
        };
        own.lock_owned().await
    }

    /// The node's status must name what is attached to it and may be mounted.
    pub(super) fn use_begins(&self, unique: &str) -> bool {
        lock(&self.in_use).insert(unique.to_owned())
    }

    pub(super) fn use_ends(&self, unique: &str) -> bool {
        lock(&self.in_use).remove(unique)
    }

    /// `node.status.volumesInUse`.
    pub(crate) fn in_use(&self) -> Vec<String> {
        lock(&self.in_use).iter().cloned().collect()
    }
}
