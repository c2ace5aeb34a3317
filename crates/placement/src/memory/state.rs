//! What memory containers have, and the state file that says it (`memory_manager_state`).

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::checkpoint::{CORRUPT, StateFile, checksum};

const FILE: &str = "memory_manager_state";

/// Memory of one kind on one node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Table {
    pub(crate) total: u64,
    pub(crate) system_reserved: u64,
    pub(crate) allocatable: u64,
    pub(crate) reserved: u64,
    pub(crate) free: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Node {
    pub(crate) number_of_assignments: i64,
    pub(crate) memory_map: BTreeMap<String, Table>,
    /// The nodes whose memory is given together with this node's.
    pub(crate) cells: Vec<usize>,
}

pub(crate) type Nodes = BTreeMap<usize, Node>;

/// What a container has of one kind of memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Block {
    pub numa_affinity: Vec<usize>,
    #[serde(rename = "type")]
    pub kind: String,
    pub size: u64,
}

/// By pod and container.
pub(crate) type Assignments = BTreeMap<String, BTreeMap<String, Vec<Block>>>;

#[derive(Clone, Debug)]
pub(crate) struct State {
    file: StateFile,
    policy: &'static str,
    pub(crate) nodes: Nodes,
    pub(crate) assigned: Assignments,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct File {
    policy_name: String,
    machine_state: Nodes,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    entries: Assignments,
    checksum: u64,
}

fn joined(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(" ")
}

fn ids(list: &[usize]) -> String {
    joined(list.iter().map(usize::to_string))
}

fn dump_node(node: &Node) -> String {
    let table = |t: &Table| {
        format!(
            "<*>{{TotalMemSize:(uint64){} SystemReserved:(uint64){} Allocatable:(uint64){} Reserved:(uint64){} Free:(uint64){}}}",
            t.total, t.system_reserved, t.allocatable, t.reserved, t.free
        )
    };
    let map = joined(node.memory_map.iter().map(|(name, t)| format!("{name}:{}", table(t))));
    format!(
        "<*>{{NumberOfAssignments:(int){} MemoryMap:(map[v1.ResourceName]*state.MemoryTable)map[{map}] Cells:([]int)[{}]}}",
        node.number_of_assignments,
        ids(&node.cells)
    )
}

fn dump_blocks(blocks: &[Block]) -> String {
    let one = |b: &Block| {
        format!(
            "{{NUMAAffinity:([]int)[{}] Type:(v1.ResourceName){} Size:(uint64){}}}",
            ids(&b.numa_affinity),
            b.kind,
            b.size
        )
    };
    format!("[{}]", joined(blocks.iter().map(one)))
}

impl File {
    fn sum(&self) -> u64 {
        let nodes =
            joined(self.machine_state.iter().map(|(id, n)| format!("{id}:{}", dump_node(n))));
        let of_pod = |containers: &BTreeMap<String, Vec<Block>>| {
            joined(containers.iter().map(|(name, b)| format!("{name}:{}", dump_blocks(b))))
        };
        let entries = joined(self.entries.iter().map(|(p, c)| format!("{p}:map[{}]", of_pod(c))));
        let dump = format!(
            "(*state.MemoryManagerCheckpoint){{PolicyName:(string){} MachineState:(state.NUMANodeMap)map[{nodes}] Entries:(state.ContainerMemoryAssignments)map[{entries}] Checksum:(checksum.Checksum)0}}",
            self.policy_name
        );
        checksum(&dump).into()
    }
}

fn read(text: &str, policy: &str) -> Result<(Nodes, Assignments), String> {
    let file: File = serde_json::from_str(text).map_err(|e| e.to_string())?;
    if file.checksum != 0 && file.checksum != file.sum() {
        return Err(CORRUPT.into());
    }
    let found = &file.policy_name;
    if found != policy {
        return Err(format!(
            "[memorymanager] configured policy {policy:?} differs from state checkpoint policy {found:?}"
        ));
    }
    Ok((file.machine_state, file.entries))
}

impl State {
    /// Reads the state of an earlier run, or begins a new one.
    pub(crate) fn restore(dir: &Path, policy: &'static str) -> Result<State, String> {
        let file = StateFile::new(dir, FILE, "memory");
        let text = file.read().map_err(|e| file.refused(e))?;
        let found = text.map(|text| read(&text, policy)).transpose();
        let (nodes, assigned) = found.map_err(|e| file.refused(e))?.unwrap_or_default();
        let state = State { file, policy, nodes, assigned };
        state.store();
        Ok(state)
    }

    pub(crate) fn store(&self) {
        let mut file = File {
            policy_name: self.policy.into(),
            machine_state: self.nodes.clone(),
            entries: self.assigned.clone(),
            checksum: 0,
        };
        file.checksum = file.sum();
        self.file.write(&serde_json::to_string(&file).unwrap_or_default());
    }

    pub(crate) fn of(&self, pod: &str, container: &str) -> Option<&Vec<Block>> {
        self.assigned.get(pod)?.get(container)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = r#"{"policyName":"static","machineState":{"0":{"numberOfAssignments":0,"memoryMap":{"memory":{"total":2048,"systemReserved":512,"allocatable":1536,"reserved":512,"free":1024}},"cells":[]}},"entries":{"pod":{"container1":[{"numaAffinity":[0],"type":"memory","size":512}]}},"checksum":4215593881}"#;

    /// The checksum is that of upstream's own file.
    #[test]
    fn upstreams_files_are_read() {
        let (nodes, assigned) = read(POD, "static").unwrap();
        assert_eq!(nodes[&0].memory_map["memory"].free, 1024);
        assert_eq!(assigned["pod"]["container1"][0].size, 512);
    }

    #[test]
    fn files_of_another_policy_or_content_are_refused() {
        let damaged = POD.replace("\"free\":1024", "\"free\":1025");
        assert_eq!(read(&damaged, "static").unwrap_err(), CORRUPT);
        assert_eq!(
            read(POD, "None").unwrap_err(),
            r#"[memorymanager] configured policy "None" differs from state checkpoint policy "static""#
        );
        assert!(read("{", "static").is_err());
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), damaged).unwrap();
        let error = State::restore(dir.path(), "static").unwrap_err();
        assert!(error.contains("delete the memory manager checkpoint file"), "{error}");
    }
}
