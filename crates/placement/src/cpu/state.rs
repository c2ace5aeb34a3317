//! What CPUs containers have, and the state file that says it (`cpu_manager_state`).

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::checkpoint::{CORRUPT, StateFile, checksum};
use crate::cpuset::CpuSet;

const FILE: &str = "cpu_manager_state";

/// By pod and container.
pub(crate) type Assignments = BTreeMap<String, BTreeMap<String, CpuSet>>;

#[derive(Clone, Debug)]
pub(crate) struct State {
    file: StateFile,
    policy: &'static str,
    /// CPUs of all containers that have none of their own.
    pub(crate) default: CpuSet,
    pub(crate) assigned: Assignments,
}

type Entries = BTreeMap<String, BTreeMap<String, String>>;

/// Of the second version. The first has container ids in place of pods and containers.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct File {
    policy_name: String,
    #[serde(alias = "defaultCPUSet")]
    default_cpu_set: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    entries: Entries,
    checksum: u64,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct FirstVersion {
    policy_name: String,
    #[serde(alias = "defaultCPUSet")]
    default_cpu_set: String,
    entries: BTreeMap<String, String>,
    checksum: u64,
}

fn dump(policy: &str, default: &str, kind: &str, entries: &str) -> String {
    format!(
        "(*state.CPUManagerCheckpoint){{PolicyName:(string){policy} DefaultCPUSet:(string){default} Entries:({kind})map[{entries}] Checksum:(checksum.Checksum)0}}"
    )
}

fn joined<'a>(pairs: impl Iterator<Item = (&'a String, String)>) -> String {
    pairs.map(|(key, value)| format!("{key}:{value}")).collect::<Vec<_>>().join(" ")
}

impl File {
    fn sum(&self) -> u64 {
        let inner = |c: &BTreeMap<String, String>| {
            format!("map[{}]", joined(c.iter().map(|(k, v)| (k, v.clone()))))
        };
        let entries = joined(self.entries.iter().map(|(pod, c)| (pod, inner(c))));
        let kind = "map[string]map[string]string";
        checksum(&dump(&self.policy_name, &self.default_cpu_set, kind, &entries)).into()
    }
}

impl FirstVersion {
    fn sum(&self) -> u64 {
        let entries = joined(self.entries.iter().map(|(k, v)| (k, v.clone())));
        let kind = "map[string]string";
        checksum(&dump(&self.policy_name, &self.default_cpu_set, kind, &entries)).into()
    }

    fn migrate(self) -> Result<File, String> {
        // Ids are those of containers that upstream's kubelet of v1.17 or before has started.
        if let Some(id) = self.entries.keys().next() {
            return Err(format!(
                "failed to migrate checkpoint from v1 to v2: containerID '{id}' not found in initial containers list"
            ));
        }
        Ok(File {
            policy_name: self.policy_name,
            default_cpu_set: self.default_cpu_set,
            ..File::default()
        })
    }
}

fn read(text: &str) -> Result<File, String> {
    let second: Result<File, _> = serde_json::from_str(text);
    if let Ok(file) = second
        && (file.checksum == 0 || file.checksum == file.sum())
    {
        return Ok(file);
    }
    let first: FirstVersion = serde_json::from_str(text).map_err(|e| match e.is_data() {
        true => CORRUPT.to_owned(),
        false => e.to_string(),
    })?;
    match first.checksum == 0 || first.checksum == first.sum() {
        true => first.migrate(),
        false => Err(CORRUPT.into()),
    }
}

fn parsed(file: &File, policy: &str) -> Result<(CpuSet, Assignments), String> {
    let found = &file.policy_name;
    if found != policy {
        return Err(format!(
            "configured policy {policy:?} differs from state checkpoint policy {found:?}"
        ));
    }
    let text = &file.default_cpu_set;
    let default = CpuSet::parse(text)
        .map_err(|e| format!("could not parse default cpu set {text:?}: {e}"))?;
    let mut assigned = Assignments::new();
    for (pod, containers) in &file.entries {
        for (container, text) in containers {
            let cpus = CpuSet::parse(text).map_err(|e| {
                format!("could not parse cpuset {text:?} for container {container:?} in pod {pod:?}: {e}")
            })?;
            assigned.entry(pod.clone()).or_default().insert(container.clone(), cpus);
        }
    }
    Ok((default, assigned))
}

impl State {
    /// Reads the state of an earlier run, or begins a new one.
    pub(crate) fn restore(dir: &Path, policy: &'static str) -> Result<State, String> {
        let file = StateFile::new(dir, FILE, "CPU");
        let text = file.read().map_err(|e| file.refused(e))?;
        let found = text.map(|text| read(&text).and_then(|file| parsed(&file, policy)));
        let (default, assigned) =
            found.transpose().map_err(|e| file.refused(e))?.unwrap_or_default();
        let state = State { file, policy, default, assigned };
        state.store();
        Ok(state)
    }

    pub(crate) fn store(&self) {
        let shown = |c: &BTreeMap<String, CpuSet>| {
            c.iter().map(|(name, cpus)| (name.clone(), cpus.to_string())).collect()
        };
        let entries = self.assigned.iter().map(|(pod, c)| (pod.clone(), shown(c)));
        let mut file = File {
            policy_name: self.policy.into(),
            default_cpu_set: self.default.to_string(),
            entries: entries.collect(),
            checksum: 0,
        };
        file.checksum = file.sum();
        self.file.write(&serde_json::to_string(&file).unwrap_or_default());
    }

    pub(crate) fn of(&self, pod: &str, container: &str) -> Option<&CpuSet> {
        self.assigned.get(pod)?.get(container)
    }

    /// All CPUs that belong to one container.
    pub(crate) fn exclusive(&self) -> CpuSet {
        let all = self.assigned.values().flat_map(BTreeMap::values);
        all.fold(CpuSet::new(), |all, cpus| all.union(cpus))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PODS: &str = r#"{"policyName":"none","defaultCPUSet":"1-3","entries":{"pod":{"container1":"4-6","container2":"1-3"}},"checksum":3610638499}"#;

    fn restored(text: &str, policy: &'static str) -> Result<State, String> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), text).unwrap();
        let path = dir.path().join(FILE).display().to_string();
        State::restore(dir.path(), policy).map_err(|e| {
            let advice = format!(", please drain this node and delete the CPU manager checkpoint file {path:?} before restarting Kubelet");
            let cause = e.strip_prefix("could not restore state from checkpoint: ").unwrap();
            cause.strip_suffix(&advice).unwrap().to_owned()
        })
    }

    /// The checksums are those of upstream's own files.
    #[test]
    fn upstreams_files_are_read() {
        let text =
            r#"{"policyName":"none","defaultCPUSet":"4-6","entries":{},"checksum":354655845}"#;
        assert_eq!(restored(text, "none").unwrap().default.to_string(), "4-6");
        let state = restored(PODS, "none").unwrap();
        assert_eq!(state.of("pod", "container1").unwrap().to_string(), "4-6");
        let first = r#"{"policyName":"none","defaultCPUSet":"1-3","checksum":1694838852}"#;
        assert_eq!(restored(first, "none").unwrap().default.to_string(), "1-3");
    }

    #[test]
    fn files_of_another_policy_or_content_are_refused() {
        let refused = [
            (
                r#"{"policyName":"none","defaultCPUSet":"4-6","entries":{},"checksum":1337}"#,
                CORRUPT,
            ),
            (
                r#"{"policyName":"other","defaultCPUSet":"1-3","entries":{},"checksum":1394507217}"#,
                r#"configured policy "none" differs from state checkpoint policy "other""#,
            ),
            (
                r#"{"policyName":"none","defaultCPUSet":"1.3","entries":{},"checksum":3021697696}"#,
                r#"could not parse default cpu set "1.3": strconv.Atoi: parsing "1.3": invalid syntax"#,
            ),
            (
                r#"{"policyName":"none","defaultCPUSet":"1-3","entries":{"pod":{"container1":"4-6","container2":"asd"}},"checksum":962272150}"#,
                r#"could not parse cpuset "asd" for container "container2" in pod "pod": strconv.Atoi: parsing "asd": invalid syntax"#,
            ),
            (
                r#"{"policyName":"none","defaultCPUSet":"1-3","entries":{"containerID1":"4-6","containerID2":"1-3"},"checksum":3680390589}"#,
                "failed to migrate checkpoint from v1 to v2: containerID 'containerID1' not found in initial containers list",
            ),
        ];
        for (text, why) in refused {
            assert_eq!(restored(text, "none").unwrap_err(), why, "{text}");
        }
        assert!(restored("{", "none").is_err());
    }

    #[test]
    fn a_state_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = State::restore(dir.path(), "static").unwrap();
        state.default = CpuSet::from([0, 1]);
        state.assigned.entry("p".into()).or_default().insert("c".into(), CpuSet::from([2, 3]));
        state.store();
        let again = State::restore(dir.path(), "static").unwrap();
        assert_eq!((again.default, again.assigned), (state.default, state.assigned));
        assert!(State::restore(dir.path(), "none").is_err());
    }
}
