//! The static policy on two nodes, alone and with the topology manager; reservations refused.

use std::collections::BTreeMap;
use std::path::Path;

use super::reserved::{Reservation, check};
use crate::machine::{Cpu, CpuTopology, Machine, NumaNode};
use crate::manager::{Manager, Settings};
use crate::pod::{Container, Kind, Pod};
use crate::provider::NoDevices;
use crate::topology::PolicyName;

const GIB: u64 = 1 << 30;

fn machine() -> Machine {
    let node = |id| NumaNode {
        id,
        memory_bytes: 10 * GIB,
        huge_pages: vec![(GIB, 1)],
        distances: vec![10, 20],
    };
    let cpu = |id: usize| (id, Cpu { numa: id % 2, socket: id % 2, core: id, uncore: id % 2 });
    Machine { cpus: CpuTopology::new((0..8).map(cpu).collect()), nodes: vec![node(0), node(1)] }
}

fn reservation(numa_node: usize, kind: &str, bytes: u64) -> Reservation {
    Reservation { numa_node, limits: BTreeMap::from([(kind.to_owned(), bytes)]) }
}

fn settings(topology_policy: PolicyName) -> Settings {
    Settings {
        memory_policy: "Static".into(),
        reserved_memory: vec![reservation(0, "memory", GIB)],
        kept_memory: BTreeMap::from([("memory".to_owned(), GIB)]),
        topology_policy,
        ..Settings::default()
    }
}

fn manager(dir: &Path, policy: PolicyName) -> Manager {
    Manager::new(&settings(policy), &machine(), dir.to_owned()).unwrap()
}

fn pod(uid: &str, gib: u64, pages: u64) -> Pod {
    let mut memory = BTreeMap::from([("memory".to_owned(), gib * GIB)]);
    if pages > 0 {
        memory.insert("hugepages-1Gi".into(), pages * GIB);
    }
    let container = Container {
        name: "c".into(),
        kind: Kind::Regular,
        cpu_millis: 500,
        memory,
        extended: BTreeMap::new(),
    };
    Pod { uid: uid.into(), guaranteed: true, pod_level: false, containers: vec![container] }
}

fn admit(manager: &mut Manager, pod: &Pod) -> Result<(), crate::error::AdmissionError> {
    futures::executor::block_on(manager.admit(pod, &mut NoDevices))
}

#[test]
fn memory_comes_from_the_narrowest_nodes_that_have_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut manager = manager(dir.path(), PolicyName::None);
    // 10 GiB less one of huge pages, and less one reserved of node 0.
    admit(&mut manager, &pod("a", 6, 1)).unwrap();
    assert_eq!(manager.memory_nodes("a", "c"), "0");
    admit(&mut manager, &pod("b", 9, 0)).unwrap();
    assert_eq!(manager.memory_nodes("b", "c"), "1");
    let error = admit(&mut manager, &pod("d", 4, 0)).unwrap_err();
    assert_eq!(error.reason, "UnexpectedAdmissionError");
    assert_eq!(
        error.message,
        "Allocate failed due to [memorymanager] failed to get the default NUMA affinity, no NUMA nodes with enough memory is available, which is unexpected"
    );
    manager.retain(|uid| uid != "a");
    admit(&mut manager, &pod("d", 4, 1)).unwrap();
    assert_eq!(manager.memory_nodes("d", "c"), "0");
}

#[test]
fn a_pod_larger_than_a_node_needs_a_policy_that_lets_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut wide = manager(dir.path(), PolicyName::Restricted);
    admit(&mut wide, &pod("a", 12, 0)).unwrap();
    assert_eq!(wide.memory_nodes("a", "c"), "0,1");
    let dir = tempfile::tempdir().unwrap();
    let mut single = manager(dir.path(), PolicyName::SingleNumaNode);
    let error = admit(&mut single, &pod("a", 12, 0)).unwrap_err();
    assert_eq!(error.reason, "TopologyAffinityError");
    assert_eq!(error.message, "Resources cannot be allocated with Topology locality");
    let text = single.figures().text();
    assert!(text.contains("kubelet_topology_manager_admission_errors_total 1\n"), "{text}");
}

#[test]
fn a_state_survives_a_restart_and_is_refused_on_another_machine() {
    let dir = tempfile::tempdir().unwrap();
    admit(&mut manager(dir.path(), PolicyName::None), &pod("a", 6, 1)).unwrap();
    let again = manager(dir.path(), PolicyName::None);
    assert_eq!(again.memory_blocks("a", "c").len(), 2);
    let mut other = machine();
    other.nodes[1].memory_bytes += 1;
    let error = Manager::new(&settings(PolicyName::None), &other, dir.path().to_owned());
    assert_eq!(
        error.unwrap_err(),
        "[memorymanager] the expected machine state is different from the real one"
    );
}

#[test]
fn reservations_that_do_not_add_up_are_refused() {
    let nodes = machine().nodes;
    let kept = BTreeMap::from([("memory".to_owned(), GIB), ("cpu".to_owned(), 1)]);
    let refused =
        |list: &[Reservation], kept: &BTreeMap<String, u64>| check(&nodes, kept, list).unwrap_err();
    assert!(check(&nodes, &kept, &[reservation(1, "memory", GIB)]).is_ok());
    assert_eq!(
        refused(&[reservation(2, "memory", GIB)], &kept),
        "the reserved memory configuration references a NUMA node 2 that does not exist on this machine"
    );
    assert!(refused(&[reservation(0, "memory", 1)], &kept).contains("is not equal to the value"));
    assert_eq!(
        refused(&[], &BTreeMap::new()),
        "[memorymanager] you should specify the system reserved memory"
    );
}

#[test]
fn policies_that_do_not_exist_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |settings: Settings| {
        Manager::new(&settings, &machine(), dir.path().to_owned()).unwrap_err()
    };
    let cpu = |policy: &str| Settings { cpu_policy: policy.into(), ..Settings::default() };
    assert_eq!(refused(cpu("x")), "unknown policy: \"x\"");
    assert!(refused(cpu("static")).contains("requires systemreserved.cpu + kubereserved.cpu"));
    let options = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
    assert_eq!(
        refused(Settings { cpu_options: options, ..Settings::default() }),
        "new none policy error: None policy: received unsupported options=map[a:b]"
    );
    let memory = |policy: &str| Settings { memory_policy: policy.into(), ..Settings::default() };
    assert_eq!(
        refused(memory("BestEffort")),
        "policy \"BestEffort\" is not available for platform \"linux\""
    );
}
