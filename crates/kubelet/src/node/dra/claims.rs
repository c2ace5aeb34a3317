//! Claims that pods of the node use: which of them are prepared, and for which pods; with the state file that
//! says it (`dra_manager_state`), in upstream's form.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

const FILE: &str = "dra_manager_state";
const KIND: &str = "DRACheckpoint";
const API_VERSION: &str = "checkpoint.dra.kubelet.k8s.io/v1";
/// Longest state file: thousands of claims have less.
const FILE_MAX: u64 = 64 << 20;

/// Namespace and name.
pub(crate) type Key = (String, String);

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Device {
    pub(crate) pool_name: String,
    pub(crate) device_name: String,
    #[serde(rename = "ShareID")]
    pub(crate) share_id: Option<String>,
    /// `None` and an empty list are the same; Go writes the former as `null`.
    pub(crate) request_names: Option<Vec<String>>,
    #[serde(rename = "CDIDeviceIDs")]
    pub(crate) cdi_device_ids: Option<Vec<String>>,
}

impl Device {
    pub(crate) fn cdi(&self) -> &[String] {
        self.cdi_device_ids.as_deref().unwrap_or_default()
    }

    /// Whether it is for the request; an empty name is for all of them.
    pub(crate) fn is_for(&self, request: &str) -> bool {
        let names = self.request_names.as_deref().unwrap_or_default();
        request.is_empty() || names.is_empty() || names.iter().any(|name| name == request)
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct DriverState {
    pub(crate) devices: Option<Vec<Device>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Nothing {}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct ClaimInfo {
    #[serde(rename = "ClaimUID")]
    pub(crate) claim_uid: String,
    pub(crate) claim_name: String,
    pub(crate) namespace: String,
    #[serde(rename = "PodUIDs")]
    pods: BTreeMap<String, Nothing>,
    pub(crate) driver_state: BTreeMap<String, DriverState>,
    /// In this run of the agent.
    #[serde(skip)]
    pub(crate) prepared: bool,
}

impl ClaimInfo {
    /// A claim that these drivers have devices for.
    pub(crate) fn new(
        key: &Key,
        uid: &str,
        drivers: impl IntoIterator<Item = String>,
    ) -> ClaimInfo {
        let drivers = drivers.into_iter().map(|name| (name, DriverState::default()));
        ClaimInfo {
            claim_uid: uid.to_owned(),
            claim_name: key.1.clone(),
            namespace: key.0.clone(),
            driver_state: drivers.collect(),
            ..ClaimInfo::default()
        }
    }

    pub(crate) fn key(&self) -> Key {
        (self.namespace.clone(), self.claim_name.clone())
    }

    pub(crate) fn pods(&self) -> impl Iterator<Item = &String> {
        self.pods.keys()
    }

    /// All devices with the names of their drivers.
    pub(crate) fn devices(&self) -> impl Iterator<Item = (&String, &Device)> {
        let all = self.driver_state.iter();
        all.flat_map(|(driver, state)| state.devices.iter().flatten().map(move |d| (driver, d)))
    }
}

/// The outcome of unpreparing a pod's claim.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Release {
    /// It is not known: nothing is to be done.
    Unknown,
    /// Other pods use it.
    Shared,
    /// The pod was the last one.
    Last(ClaimInfo),
}

/// All claims in use.
#[derive(Debug)]
pub(crate) struct Claims {
    path: PathBuf,
    all: BTreeMap<Key, ClaimInfo>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct File {
    data: String,
    checksum: u32,
}

#[derive(Serialize, Deserialize)]
struct Data {
    kind: String,
    #[serde(rename = "apiVersion")]
    api_version: String,
    #[serde(rename = "ClaimInfoStateList")]
    list: Option<Vec<ClaimInfo>>,
}

fn checksum(text: &str) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(text.as_bytes());
    crc.sum()
}

fn parse(text: &str) -> Result<Vec<ClaimInfo>, String> {
    let file: File = serde_json::from_str(text).map_err(|e| e.to_string())?;
    if file.checksum != checksum(&file.data) {
        return Err("checkpoint is corrupted".to_owned());
    }
    let data: Data = serde_json::from_str(&file.data).map_err(|e| e.to_string())?;
    Ok(data.list.unwrap_or_default())
}

fn text<'a>(all: impl Iterator<Item = &'a ClaimInfo>) -> String {
    let data = Data {
        kind: KIND.to_owned(),
        api_version: API_VERSION.to_owned(),
        list: Some(all.cloned().collect()),
    };
    let data = serde_json::to_string(&data).unwrap_or_default();
    let checksum = checksum(&data);
    serde_json::to_string(&File { data, checksum }).unwrap_or_default()
}

impl Claims {
    /// Takes over what an earlier run knew; refuses a file that cannot be believed, as upstream does: claims
    /// that are prepared would stay so for ever.
    pub(crate) fn open(root: &Path) -> Result<Claims, String> {
        let path = root.join(FILE);
        let found = read(&path).and_then(|text| text.map(|text| parse(&text)).transpose());
        let found = found.map_err(|why| {
            format!("create ResourceClaim cache: failed to get checkpoint {FILE}: {why}")
        })?;
        let all = found.into_iter().flatten().map(|info| (info.key(), info)).collect();
        Ok(Claims { path, all })
    }

    pub(crate) fn get(&self, key: &Key) -> Option<&ClaimInfo> {
        self.all.get(key)
    }

    pub(crate) fn list(&self) -> impl Iterator<Item = &ClaimInfo> {
        self.all.values()
    }

    /// The pod uses the claim; whether its drivers have yet to prepare it.
    pub(crate) fn begin(&mut self, claim: &ClaimInfo, pod: &str) -> Result<bool, String> {
        let info = self.all.entry(claim.key()).or_insert_with(|| claim.clone());
        if info.claim_uid != claim.claim_uid {
            return Err(format!(
                "old ResourceClaim with same name {} and different UID {} still exists (previous pod force-deleted?!)",
                claim.claim_name, info.claim_uid
            ));
        }
        info.pods.insert(pod.to_owned(), Nothing {});
        Ok(!info.prepared)
    }

    /// The driver has prepared these devices for the claim.
    pub(crate) fn set_devices(&mut self, key: &Key, driver: &str, devices: Vec<Device>) {
        if let Some(info) = self.all.get_mut(key) {
            let state = info.driver_state.entry(driver.to_owned()).or_default();
            state.devices = Some(devices).filter(|list| !list.is_empty());
        }
    }

    pub(crate) fn set_prepared(&mut self, key: &Key) {
        if let Some(info) = self.all.get_mut(key) {
            info.prepared = true;
        }
    }

    /// The pod needs the claim no more.
    pub(crate) fn release(&mut self, key: &Key, pod: &str) -> Release {
        let Some(info) = self.all.get_mut(key) else { return Release::Unknown };
        if info.pods.keys().any(|other| other != pod) {
            info.pods.remove(pod);
            return Release::Shared;
        }
        Release::Last(info.clone())
    }

    /// Its drivers have unprepared it.
    pub(crate) fn forget(&mut self, key: &Key) {
        self.all.remove(key);
    }

    /// Claims of the pod.
    pub(crate) fn of_pod(&self, pod: &str) -> Vec<Key> {
        let own = self.all.iter().filter(|(_, info)| info.pods.contains_key(pod));
        own.map(|(key, _)| key.clone()).collect()
    }

    /// Uids of all pods that use claims.
    pub(crate) fn pods(&self) -> BTreeSet<String> {
        self.all.values().flat_map(ClaimInfo::pods).cloned().collect()
    }

    /// Prepared claims by driver, and in all (`<any>`).
    pub(crate) fn in_use(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::from([("<any>".to_owned(), 0)]);
        for info in self.all.values().filter(|info| info.prepared) {
            for name in info.driver_state.keys().map(String::as_str).chain(["<any>"]) {
                *counts.entry(name.to_owned()).or_default() += 1;
            }
        }
        counts
    }

    /// Writes the state down, durably.
    pub(crate) fn store(&self) -> Result<(), String> {
        let fresh = self.path.with_extension("new");
        let write = || -> io::Result<()> {
            let mut file = fs::File::create(&fresh)?;
            file.write_all(text(self.all.values()).as_bytes())?;
            file.sync_all()?;
            fs::rename(&fresh, &self.path)
        };
        write().map_err(|e| {
            format!("checkpoint ResourceClaim state: could not save checkpoint {FILE}: {e}")
        })
    }
}

fn read(path: &Path) -> Result<Option<String>, String> {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e.to_string()),
    };
    let mut text = String::new();
    file.take(FILE_MAX).read_to_string(&mut text).map_err(|e| e.to_string())?;
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(uid: &str) -> ClaimInfo {
        ClaimInfo::new(&("ns".into(), "c".into()), uid, ["d.example.com".to_owned()])
    }

    /// Files of upstream's tests.
    #[test]
    fn upstreams_files_are_read_and_written_to_the_byte() {
        let one = r#"{"Data":"{\"kind\":\"DRACheckpoint\",\"apiVersion\":\"checkpoint.dra.kubelet.k8s.io/v1\",\"ClaimInfoStateList\":[{\"ClaimUID\":\"067798be-454e-4be4-9047-1aa06aea63f7\",\"ClaimName\":\"example\",\"Namespace\":\"default\",\"PodUIDs\":{\"139cdb46-f989-4f17-9561-ca10cfb509a6\":{}},\"DriverState\":{\"test-driver.cdi.k8s.io\":{\"Devices\":[{\"PoolName\":\"worker-1\",\"DeviceName\":\"dev-1\",\"ShareID\":\"aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa\",\"RequestNames\":[\"test request\"],\"CDIDeviceIDs\":[\"example.com/example=cdi-example\"]}]}}}]}","Checksum":736302156}"#;
        let two = r#"{"Data":"{\"kind\":\"DRACheckpoint\",\"apiVersion\":\"checkpoint.dra.kubelet.k8s.io/v1\",\"ClaimInfoStateList\":[{\"ClaimUID\":\"067798be-454e-4be4-9047-1aa06aea63f7\",\"ClaimName\":\"example-1\",\"Namespace\":\"default\",\"PodUIDs\":{\"139cdb46-f989-4f17-9561-ca10cfb509a6\":{}},\"DriverState\":{\"test-driver.cdi.k8s.io\":{\"Devices\":[{\"PoolName\":\"worker-1\",\"DeviceName\":\"dev-1\",\"ShareID\":null,\"RequestNames\":[\"test request\"],\"CDIDeviceIDs\":[\"example.com/example=cdi-example\"]}]}}},{\"ClaimUID\":\"4cf8db2d-06c0-7d70-1a51-e59b25b2c16c\",\"ClaimName\":\"example-2\",\"Namespace\":\"default\",\"PodUIDs\":{\"139cdb46-f989-4f17-9561-ca10cfb509a6\":{}},\"DriverState\":{\"test-driver.cdi.k8s.io\":{\"Devices\":[{\"PoolName\":\"worker-1\",\"DeviceName\":\"dev-2\",\"ShareID\":null,\"RequestNames\":null,\"CDIDeviceIDs\":null}]}}}]}","Checksum":2820117767}"#;
        for file in [one, two] {
            let read = parse(file).unwrap();
            assert_eq!(text(read.iter()), file);
            assert!(read.iter().all(|info| !info.prepared));
        }
        assert_eq!(parse(&one.replace("dev-1", "dev-3")), Err("checkpoint is corrupted".into()));
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), "{}").unwrap();
        let said = Claims::open(dir.path()).unwrap_err();
        assert!(said.starts_with("create ResourceClaim cache: "), "{said}");
    }

    #[test]
    fn a_claim_is_unprepared_with_its_last_pod() {
        let dir = tempfile::tempdir().unwrap();
        let mut claims = Claims::open(dir.path()).unwrap();
        let key = claim("u").key();
        assert_eq!(claims.begin(&claim("u"), "p1"), Ok(true));
        let devices = vec![Device { device_name: "d0".into(), ..Device::default() }];
        claims.set_devices(&key, "d.example.com", devices);
        claims.set_prepared(&key);
        assert_eq!(claims.begin(&claim("u"), "p2"), Ok(false));
        assert_eq!(claims.in_use(), [("<any>".into(), 1), ("d.example.com".into(), 1)].into());
        assert_eq!(
            claims.begin(&claim("other"), "p3").unwrap_err(),
            "old ResourceClaim with same name c and different UID u still exists (previous pod force-deleted?!)"
        );
        claims.store().unwrap();
        // A restart keeps pods and devices; drivers are asked again.
        let mut again = Claims::open(dir.path()).unwrap();
        assert_eq!(again.pods().len(), 2);
        assert_eq!(again.get(&key).unwrap().devices().count(), 1);
        assert_eq!(again.begin(&claim("u"), "p1"), Ok(true));
        assert_eq!(again.release(&key, "p2"), Release::Shared);
        assert!(matches!(again.release(&key, "p1"), Release::Last(_)));
        again.forget(&key);
        assert_eq!(again.release(&key, "p1"), Release::Unknown);
    }
}
