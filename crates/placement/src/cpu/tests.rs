//! Assignment and policy on synthetic machines. Expected sets are facts of upstream's tables.

use std::collections::BTreeMap;

use super::assign::{Manner, Sorting, take_packed};
use super::distribute::take_distributed;
use super::options::{CpuOptions, Gates};
use super::policy::{CpuManager, Settings};
use crate::cpuset::CpuSet;
use crate::figures::Figures;
use crate::machine::{Cpu, CpuTopology};
use crate::mask::{Hint, NumaMask};
use crate::pod::{Container, Kind, Pod};
use crate::provider::HintProvider;
use crate::topology::PolicyName;

fn topology(cpus: usize, of: impl Fn(usize) -> Cpu) -> CpuTopology {
    CpuTopology::new((0..cpus).map(|id| (id, of(id))).collect())
}

fn single_socket() -> CpuTopology {
    topology(8, |id| Cpu { numa: 0, socket: 0, core: id % 4, uncore: 0 })
}

fn dual_socket() -> CpuTopology {
    topology(12, |id| Cpu { numa: id % 2, socket: id % 2, core: id % 6, uncore: 0 })
}

fn multi_numa() -> CpuTopology {
    topology(80, |id| {
        let core = id % 40;
        Cpu { numa: core / 10, socket: core / 20, core, uncore: 0 }
    })
}

/// Four caches of two cores each.
fn uncore() -> CpuTopology {
    topology(16, |id| Cpu { numa: 0, socket: 0, core: id % 8, uncore: id % 8 / 2 })
}

const PACKED: Manner = Manner { sorting: Sorting::Packed, prefer_uncore: false };

fn set(text: &str) -> CpuSet {
    CpuSet::parse(text).unwrap()
}

#[test]
fn requests_take_whole_groups_first() {
    let (single, dual, multi) = (single_socket(), dual_socket(), multi_numa());
    let cases: [(&CpuTopology, &str, usize, &str); 12] = [
        (&single, "0-7", 0, ""),
        (&single, "0-7", 1, "0"),
        (&single, "1,3,5-7", 1, "6"),
        (&single, "0-7", 2, "0,4"),
        (&single, "0-7", 8, "0-7"),
        (&single, "0-3,6", 2, "2,6"),
        (&dual, "0-11", 6, "0,2,4,6,8,10"),
        (&multi, "0-79", 40, "0-19,40-59"),
        (&multi, "0-79", 20, "0-9,40-49"),
        (&multi, "10-39,50-79", 20, "10-19,50-59"),
        (&multi, "0-79", 60, "0-29,40-69"),
        (&multi, "1-39,41-79", 60, "10-39,50-79"),
    ];
    for (topology, available, count, expected) in cases {
        let taken = take_packed(topology, &set(available), count, PACKED).unwrap();
        assert_eq!(taken.to_string(), expected, "{count} of {available}");
    }
    assert_eq!(
        take_packed(&single, &set("0,2,4,6"), 5, PACKED).unwrap_err(),
        "not enough cpus available to satisfy request: requested=5, available=4"
    );
}

#[test]
fn requests_are_spread_over_numa_nodes() {
    let (dual, multi) = (dual_socket(), multi_numa());
    let cases: [(&CpuTopology, &str, usize, &str); 6] = [
        (&dual, "0-11", 8, "0-3,6-9"),
        (&multi, "0-79", 64, "0-7,10-17,20-27,30-37,40-47,50-57,60-67,70-77"),
        (&multi, "0-79", 48, "0-7,10-17,20-27,40-47,50-57,60-67"),
        (&multi, "1-29,32-39,41-69,72-79", 48, "1-8,10-17,20-27,41-48,50-57,60-67"),
        (&multi, "2-29,31-39,42-69,71-79", 48, "10-17,20-27,31-38,50-57,60-67,71-78"),
        (
            &multi,
            "0-2,10-12,20-22,30-32,40-41,50-51,60-61,70-71",
            16,
            "0-1,10-11,20-21,30-31,40-41,50-51,60-61,70-71",
        ),
    ];
    for (topology, available, count, expected) in cases {
        let taken = take_distributed(topology, &set(available), count, 1, Sorting::Packed).unwrap();
        assert_eq!(taken.to_string(), expected, "{count} of {available}");
    }
    assert!(take_distributed(&dual, &set("0-1"), 4, 1, Sorting::Packed).is_err());
}

#[test]
fn a_cache_that_can_serve_a_request_alone_does() {
    let manner = Manner { prefer_uncore: true, ..PACKED };
    // One core of the first cache is taken.
    let taken = take_packed(&uncore(), &set("1-7,9-15"), 4, manner).unwrap();
    assert_eq!(taken, set("2-3,10-11"));
}

/// Options, gates, and why they are refused.
type Refused = (&'static [(&'static str, &'static str)], Gates, &'static str);

#[test]
fn options_are_read_and_refused() {
    let parse = |list: &[(&str, &str)], gates| {
        let list = list.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        CpuOptions::parse(&list.collect::<BTreeMap<_, _>>(), gates)
    };
    let all = Gates { alpha: true, beta: true };
    assert!(parse(&[("full-pcpus-only", "true")], Gates::default()).unwrap().full_cores);
    let refused: [Refused; 8] = [
        (&[("x", "true")], all, "unknown CPU Manager Policy option: \"x\""),
        (
            &[("align-by-socket", "true")],
            Gates::default(),
            "CPU Manager Policy Alpha-level Options not enabled, but option \"align-by-socket\" provided",
        ),
        (
            &[("distribute-cpus-across-numa", "true")],
            Gates { alpha: false, beta: false },
            "CPU Manager Policy Beta-level Options not enabled, but option \"distribute-cpus-across-numa\" provided",
        ),
        (
            &[("full-pcpus-only", "yes")],
            all,
            "bad value for option \"full-pcpus-only\": strconv.ParseBool: parsing \"yes\": invalid syntax",
        ),
        (
            &[("full-pcpus-only", "1"), ("distribute-cpus-across-cores", "1")],
            all,
            "static policy options full-pcpus-only and distribute-cpus-across-cores can not be used at the same time",
        ),
        (
            &[("distribute-cpus-across-numa", "1"), ("distribute-cpus-across-cores", "1")],
            all,
            "static policy options distribute-cpus-across-numa and distribute-cpus-across-cores can not be used at the same time",
        ),
        (
            &[("prefer-align-cpus-by-uncorecache", "1"), ("distribute-cpus-across-cores", "1")],
            all,
            "static policy options prefer-align-cpus-by-uncorecache and distribute-cpus-across-cores can not be used at the same time",
        ),
        (
            &[("prefer-align-cpus-by-uncorecache", "1"), ("distribute-cpus-across-numa", "1")],
            all,
            "static policy options prefer-align-cpus-by-uncorecache and distribute-cpus-across-numa can not be used at the same time",
        ),
    ];
    for (list, gates, why) in refused {
        assert_eq!(parse(list, gates).unwrap_err(), why);
    }
    let by_socket = parse(&[("align-by-socket", "1")], all).unwrap();
    assert!(by_socket.check_machine(&multi_numa(), PolicyName::Restricted).is_ok());
    assert!(by_socket.check_machine(&multi_numa(), PolicyName::SingleNumaNode).is_err());
}

fn manager(dir: &std::path::Path, options: CpuOptions, cpus: &CpuTopology) -> CpuManager {
    let settings = Settings { is_static: true, options, reserved: (1, CpuSet::new()) };
    CpuManager::new(cpus, settings, dir, &Figures::default()).unwrap()
}

fn pod(uid: &str, containers: &[(&str, Kind, u64)]) -> Pod {
    let container = |(name, kind, cpu_millis): &(&str, Kind, u64)| Container {
        name: (*name).into(),
        kind: *kind,
        cpu_millis: *cpu_millis,
        memory: BTreeMap::new(),
        extended: BTreeMap::new(),
    };
    let containers = containers.iter().map(container).collect();
    Pod { uid: uid.into(), guaranteed: true, pod_level: false, containers }
}

fn allocate(
    manager: &mut CpuManager,
    pod: &Pod,
    hint: Hint,
) -> Result<(), crate::error::AdmissionError> {
    for container in &pod.containers {
        futures::executor::block_on(manager.allocate(pod, container, hint))?;
    }
    Ok(())
}

#[test]
fn only_whole_cpus_of_guaranteed_pods_are_exclusive() {
    let dir = tempfile::tempdir().unwrap();
    let mut manager = manager(dir.path(), CpuOptions::default(), &single_socket());
    let fractional = pod("a", &[("c", Kind::Regular, 1500)]);
    let burstable = Pod { guaranteed: false, ..pod("b", &[("c", Kind::Regular, 2000)]) };
    let whole_pod = Pod { pod_level: true, ..pod("d", &[("c", Kind::Regular, 2000)]) };
    for shared in [&fractional, &burstable, &whole_pod] {
        allocate(&mut manager, shared, Hint::any(false)).unwrap();
        assert_eq!(manager.exclusive(&shared.uid, "c"), None);
        assert_eq!(manager.cpus(&shared.uid, "c"), set("0-7"));
    }
    let own = pod("e", &[("c", Kind::Regular, 2000)]);
    allocate(&mut manager, &own, Hint::any(false)).unwrap();
    // CPU 0 is reserved, so its core is not whole.
    assert_eq!(manager.cpus("e", "c"), set("1,5"));
    assert_eq!(manager.cpus("a", "c"), set("0,2-4,6-7"));
    manager.retain(|uid| uid != "e");
    assert_eq!(manager.cpus("a", "c"), set("0-7"));
}

#[test]
fn init_containers_leave_their_cpus_to_the_next_ones() {
    let dir = tempfile::tempdir().unwrap();
    let mut manager = manager(dir.path(), CpuOptions::default(), &single_socket());
    let both = pod("p", &[("init", Kind::Init, 4000), ("main", Kind::Regular, 4000)]);
    allocate(&mut manager, &both, Hint::any(false)).unwrap();
    assert_eq!(manager.exclusive("p", "init"), manager.exclusive("p", "main"));
    let sidecar = pod("q", &[("side", Kind::Sidecar, 2000), ("main", Kind::Regular, 2000)]);
    let error = allocate(&mut manager, &sidecar, Hint::any(false)).unwrap_err();
    assert_eq!(error.reason, "UnexpectedAdmissionError");
    assert_eq!(
        error.message,
        "Allocate failed due to not enough cpus available to satisfy request: requested=2, available=1, which is unexpected"
    );
}

#[test]
fn full_cores_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let options = CpuOptions { full_cores: true, ..CpuOptions::default() };
    let mut manager = manager(dir.path(), options, &single_socket());
    let mut refused = |millis| {
        let pod = pod("p", &[("c", Kind::Regular, millis)]);
        let error = allocate(&mut manager, &pod, Hint::any(false)).unwrap_err();
        assert_eq!(error.reason, "SMTAlignmentError");
        error.message
    };
    assert_eq!(
        refused(3000),
        "SMT Alignment Error: requested 3 cpus not multiple cpus per core = 2"
    );
    assert_eq!(
        refused(8000),
        "SMT Alignment Error: not enough free physical CPUs: available physical CPUs = 6, requested CPUs = 8, CPUs per core = 2"
    );
}

#[test]
fn hints_name_the_nodes_that_can_serve() {
    let dir = tempfile::tempdir().unwrap();
    let mut manager = manager(dir.path(), CpuOptions::default(), &dual_socket());
    let six = pod("p", &[("c", Kind::Regular, 6000)]);
    let hints = manager.hints(&six, &six.containers[0]);
    let of = |nodes: &[usize], preferred| Hint::new(NumaMask::of(nodes.iter().copied()), preferred);
    // Node 0 has only five left beside the reserved one.
    assert_eq!(hints["cpu"], Some(vec![of(&[1], true), of(&[0, 1], false)]));
    allocate(&mut manager, &six, of(&[1], true)).unwrap();
    assert_eq!(manager.cpus("p", "c"), set("1,3,5,7,9,11"));
    assert_eq!(manager.hints(&six, &six.containers[0])["cpu"].as_ref().unwrap()[0], of(&[1], true));
}

#[test]
fn a_state_of_another_machine_or_policy_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut before = manager(dir.path(), CpuOptions::default(), &single_socket());
    let own = pod("p", &[("c", Kind::Regular, 2000)]);
    allocate(&mut before, &own, Hint::any(false)).unwrap();
    let again = manager(dir.path(), CpuOptions::default(), &single_socket());
    assert_eq!(again.cpus("p", "c"), set("1,5"));
    let refused = |is_static, options, cpus: &CpuTopology| {
        let settings = Settings { is_static, options, reserved: (1, CpuSet::new()) };
        let made = CpuManager::new(cpus, settings, dir.path(), &Figures::default());
        made.err().expect("refused")
    };
    let error = refused(true, CpuOptions::default(), &dual_socket());
    assert_eq!(
        error,
        "current set of available CPUs \"0-11\" doesn't match with CPUs in state \"0-7\""
    );
    let strict = CpuOptions { strict: true, ..CpuOptions::default() };
    let error = refused(true, strict, &single_socket());
    assert!(error.starts_with("some of strictly reserved cpus: \"0\" are present"), "{error}");
    let error = refused(false, CpuOptions::default(), &single_socket());
    assert!(
        error
            .contains("configured policy \"none\" differs from state checkpoint policy \"static\"")
    );
}
