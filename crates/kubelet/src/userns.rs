//! User namespaces: which range of the host's ids each pod with `hostUsers: false` has.
//!
//! Ranges never overlap, so that a process that leaves its container is nobody to the host and to
//! other pods. A pod's range is written to its directory before it is used, and is free again when
//! that directory is gone; the format is upstream's, so that either agent takes over from the other.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::Pod;
use ring::rand::{SecureRandom, SystemRandom};
use runtime::cri::{IDMapping, NamespaceMode, UserNamespace};
use serde::{Deserialize, Serialize};

use crate::beneath::{Access, Dir};
use crate::kubelet::Shared;
use crate::spec::{spec_of, uid_of};
use crate::volumes;

/// Ids of one pod: what a program may expect to have.
const LENGTH: u32 = 65_536;
/// Ranges by number. The first holds the host's own users; ids above `i32::MAX` are refused by the
/// runtime, since some programs take them for negative.
const FIRST: u32 = 1;
const LAST: u32 = i32::MAX as u32 / LENGTH - 1;
const _: () = assert!((LAST + 1) * LENGTH <= i32::MAX as u32);
/// The file in a pod's directory, and the most that one may hold.
const FILE: &str = "userns";
const FILE_MAX: usize = 4096;
const FILE_MODE: u32 = 0o600;
/// Chance finds a free range at once; with the node full of pods a search would.
const TRIES: usize = 1000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mapping {
    host_id: u32,
    container_id: u32,
    length: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mappings {
    uid_mappings: Vec<Mapping>,
    gid_mappings: Vec<Mapping>,
}

impl Mappings {
    fn of(range: u32) -> Mappings {
        let mapping = Mapping { host_id: range * LENGTH, container_id: 0, length: LENGTH };
        Mappings { uid_mappings: vec![mapping], gid_mappings: vec![mapping] }
    }

    /// The number of the range, if it is one that this agent gives out.
    fn range(&self) -> Option<u32> {
        let [mapping] = self.uid_mappings.as_slice() else { return None };
        let range = mapping.host_id / LENGTH;
        (*self == Mappings::of(range) && (FIRST..=LAST).contains(&range)).then_some(range)
    }
}

/// The ranges in use, by pod.
#[derive(Debug)]
pub(crate) struct Ranges {
    root: PathBuf,
    by_pod: Mutex<HashMap<String, u32>>,
}

/// The namespace of pods that share the host's users.
pub(crate) fn of_host() -> UserNamespace {
    UserNamespace { mode: NamespaceMode::Node as i32, ..UserNamespace::default() }
}

fn message(range: u32) -> UserNamespace {
    let ids = vec![IDMapping { host_id: range * LENGTH, container_id: 0, length: LENGTH }];
    UserNamespace { mode: NamespaceMode::Pod as i32, uids: ids.clone(), gids: ids }
}

fn wants_own(pod: &Pod) -> bool {
    spec_of(pod).host_users == Some(false)
}

impl Ranges {
    /// Reads what earlier runs of the agent gave out.
    pub(crate) fn load(root: &Path) -> Ranges {
        let mut by_pod = HashMap::new();
        let pods = Dir::root(&volumes::pods_dir(root)).and_then(|dir| dir.names());
        for uid in pods.unwrap_or_default() {
            let Some(uid) = uid.to_str() else { continue };
            match read(root, uid) {
                Ok(Some(range)) => drop(by_pod.insert(uid.to_owned(), range)),
                Ok(None) => {}
                Err(error) => tracing::error!(%error, uid, "user namespace of the pod not known"),
            }
        }
        Ranges { root: root.to_owned(), by_pod: Mutex::new(by_pod) }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, u32>> {
        self.by_pod.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pod's range; a new one is on disk before it is used.
    fn get_or_create(&self, uid: &str) -> Result<u32, String> {
        let mut by_pod = self.lock();
        if let Some(range) = by_pod.get(uid) {
            return Ok(*range);
        }
        // One that could not be read at the start must not be replaced: the pod may be running.
        let known = read(&self.root, uid).map_err(|e| format!("user namespace: {e}"))?;
        let range = match known {
            Some(range) => range,
            None => free(&by_pod.values().copied().collect())?,
        };
        write(&self.root, uid, range).map_err(|e| format!("create user namespace: {e}"))?;
        by_pod.insert(uid.to_owned(), range);
        Ok(range)
    }

    /// The pod's directory is gone, and with it the pod.
    pub(crate) fn release(&self, uid: &str) {
        self.lock().remove(uid);
    }

    /// The namespace that a pod's sandbox was made with.
    pub(crate) fn recorded(&self, pod: &Pod) -> Result<UserNamespace, String> {
        if !wants_own(pod) {
            return Ok(of_host());
        }
        let range = self.lock().get(uid_of(pod)).copied();
        range.map(message).ok_or_else(|| "user namespace: the pod has no range of ids".to_owned())
    }
}

fn free(used: &HashSet<u32>) -> Result<u32, String> {
    let random = SystemRandom::new();
    for _ in 0..TRIES {
        let mut bytes = [0; 4];
        random.fill(&mut bytes).map_err(|_| "no random numbers".to_owned())?;
        let range = FIRST + u32::from_ne_bytes(bytes) % (LAST - FIRST + 1);
        if !used.contains(&range) {
            return Ok(range);
        }
    }
    Err("could not find an empty slot to allocate a user namespace".into())
}

fn read(root: &Path, uid: &str) -> io::Result<Option<u32>> {
    let text = match volumes::open_pod_dir(root, uid).and_then(|dir| dir.read(FILE, FILE_MAX)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let mappings: Mappings = serde_json::from_slice(&text).map_err(io::Error::other)?;
    let bad = || io::Error::new(io::ErrorKind::InvalidData, "invalid user namespace mappings file");
    mappings.range().map(Some).ok_or_else(bad)
}

fn write(root: &Path, uid: &str, range: u32) -> io::Result<()> {
    let text = serde_json::to_vec(&Mappings::of(range)).map_err(io::Error::other)?;
    let dir = volumes::make_pod_dir(root, uid)?;
    dir.replace(FILE, &text, Access::mode(FILE_MODE))?;
    dir.sync(FILE)
}

/// The pod's user namespace, as its sandbox is asked to have it; an error where the runtime's handler
/// cannot make one.
pub(crate) async fn of(shared: &Shared, pod: &Pod, handler: &str) -> Result<UserNamespace, String> {
    if !wants_own(pod) {
        return Ok(of_host());
    }
    let unsupported = match handler {
        "" => "can't set `spec.hostUsers: false`, runtime does not support user namespaces".into(),
        handler => format!(
            "can't set `spec.hostUsers: false`, RuntimeClass handler \"{handler}\" does not support user namespaces"
        ),
    };
    match shared.handler_features(handler).await {
        Ok(features) if features.user_namespaces => {}
        Ok(_) => return Err(unsupported),
        Err(error) => return Err(format!("{unsupported}: {error}")),
    }
    shared.userns.get_or_create(uid_of(pod)).map(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_apart_remembered_and_given_back() {
        let root = tempfile::tempdir().unwrap();
        let ranges = Ranges::load(root.path());
        let all: HashSet<u32> =
            (0..200).map(|i| ranges.get_or_create(&format!("u{i}")).unwrap()).collect();
        assert_eq!(all.len(), 200);
        assert!(all.iter().all(|r| (FIRST..=LAST).contains(r)));
        let first = ranges.get_or_create("u0").unwrap();
        let again = Ranges::load(root.path());
        assert_eq!(again.lock().len(), 200);
        assert_eq!(again.get_or_create("u0"), Ok(first));
        again.release("u0");
        assert!(!again.lock().contains_key("u0"));
    }

    #[test]
    fn a_spoilt_file_fails_the_pod() {
        let root = tempfile::tempdir().unwrap();
        let ranges = Ranges::load(root.path());
        let mapping = |host, inner, length| {
            format!(
                r#"{{"uidMappings":[{{"hostId":{host},"containerId":{inner},"length":{length}}}],"gidMappings":[{{"hostId":{host},"containerId":{inner},"length":{length}}}]}}"#
            )
        };
        let bad = [
            "x".to_owned(),
            mapping(0, 0, 65536),
            mapping(65536, 1, 65536),
            mapping(65536, 0, 1),
            mapping(65537, 0, 65536),
        ];
        for (i, text) in bad.iter().enumerate() {
            let uid = format!("u{i}");
            let dir = volumes::make_pod_dir(root.path(), &uid).unwrap();
            dir.create(FILE, text.as_bytes(), Access::mode(0o600)).unwrap();
            assert!(ranges.get_or_create(&uid).is_err(), "{text}");
        }
        let dir = volumes::make_pod_dir(root.path(), "good").unwrap();
        dir.create(FILE, mapping(131072, 0, 65536).as_bytes(), Access::mode(0o600)).unwrap();
        assert_eq!(ranges.get_or_create("good"), Ok(2));
    }
}
