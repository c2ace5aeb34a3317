//! What each pod was given, kept beside its volumes so that it outlives the agent.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::Pod;

use crate::beneath::Access;
use crate::spec::resize::Allocation;
use crate::spec::{described, uid_of};

const FILE: &str = "allocation";
const MODE: u32 = 0o600;
/// Longest file that is read: a pod's resources are a few hundred bytes a container.
const FILE_MAX: usize = 4 << 20;

/// The allocations of all pods on the node.
#[derive(Debug)]
pub(crate) struct Allocations {
    root: PathBuf,
    known: Mutex<HashMap<String, Allocation>>,
}

impl Allocations {
    pub(crate) fn new(root: &Path) -> Allocations {
        Allocations { root: root.to_owned(), known: Mutex::default() }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, Allocation>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pod with what it was given. One that nobody has decided on has what it asks for.
    pub(crate) fn effective(&self, pod: &Arc<Pod>) -> Arc<Pod> {
        match self.known().get(uid_of(pod)) {
            Some(given) if !given.fits(pod) => Arc::new(given.apply(pod)),
            _ => pod.clone(),
        }
    }

    pub(crate) fn get(&self, uid: &str) -> Option<Allocation> {
        self.known().get(uid).cloned()
    }

    /// Takes up what an earlier run of the agent gave the pod.
    pub(crate) fn recall(&self, pod: &Pod) {
        let uid = uid_of(pod);
        if self.known().contains_key(uid) {
            return;
        }
        match self.read(uid) {
            Ok(given) => drop(self.known().insert(uid.to_owned(), given)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(%error, pod = described(pod), "allocation not readable");
            }
        }
    }

    fn read(&self, uid: &str) -> io::Result<Allocation> {
        let content = super::open_pod_dir(&self.root, uid)?.read(FILE, FILE_MAX)?;
        serde_json::from_slice(&content).map_err(io::Error::other)
    }

    /// Gives the pod what its spec asks for. An agent that cannot write it down would after a restart
    /// take the spec of then for it, so the caller decides anew.
    pub(crate) fn give(&self, pod: &Pod) -> io::Result<()> {
        let (uid, given) = (uid_of(pod), Allocation::of(pod));
        let content = serde_json::to_vec(&given).map_err(io::Error::other)?;
        super::make_pod_dir(&self.root, uid)?.replace(FILE, &content, Access::mode(MODE))?;
        self.known().insert(uid.to_owned(), given);
        Ok(())
    }

    pub(crate) fn forget(&self, uid: &str) {
        self.known().remove(uid);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(cpu: &str) -> Arc<Pod> {
        let pod = json!({"metadata": {"name": "p", "uid": "u"}, "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}});
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn what_was_given_outlives_the_agent() {
        let dir = tempfile::tempdir().unwrap();
        let first = Allocations::new(dir.path());
        first.give(&pod("1")).unwrap();
        let again = Allocations::new(dir.path());
        assert_eq!(again.effective(&pod("2")), pod("2"), "nothing is known yet");
        again.recall(&pod("2"));
        assert_eq!(again.effective(&pod("2")), pod("1"));
        again.give(&pod("2")).unwrap();
        assert_eq!(again.effective(&pod("2")), pod("2"));
        let file = dir.path().join("pods/u").join(FILE);
        std::fs::write(&file, "{").unwrap();
        let torn = Allocations::new(dir.path());
        torn.recall(&pod("2"));
        assert_eq!(torn.get("u"), None, "a torn one is not trusted");
    }
}
