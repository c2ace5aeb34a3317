use super::file;
use super::*;
use crate::mask::{Hint, NumaMask};
use crate::pod::{Container, Kind, Pod};

const GPU: &str = "example.com/gpu";

fn names(list: &[&str]) -> Names {
    list.iter().map(|id| (*id).to_owned()).collect()
}

fn device(nodes: &[i64]) -> Device {
    Device { healthy: true, nodes: nodes.to_vec() }
}

/// Two devices on node 0, two on node 1, one on none.
fn table() -> (tempfile::TempDir, DeviceTable) {
    let dir = tempfile::tempdir().unwrap();
    let mut table = DeviceTable::open(dir.path(), vec![0, 1]);
    let all = [("a0", vec![0]), ("a1", vec![0]), ("b0", vec![1]), ("b1", vec![1]), ("c", vec![])];
    let all = all.into_iter().map(|(id, nodes)| (id.to_owned(), device(&nodes))).collect();
    table.update(GPU, all);
    (dir, table)
}

fn asking(uid: &'static str, container: &'static str, count: usize) -> Asking<'static> {
    Asking { uid, container, resource: GPU, count }
}

fn near(node: usize) -> Hint {
    Hint::new(NumaMask::of([node]), true)
}

/// Without a plugin that has preferences.
fn give(table: &mut DeviceTable, asking: Asking<'_>, hint: Hint) -> Result<Names, String> {
    let chosen = match table.choose(asking, hint)? {
        Choice::Nothing => return Ok(Names::new()),
        Choice::Chosen(chosen) => chosen,
        Choice::Ask(asked) => table.choose_preferred(asking.resource, asked, &Names::new())?,
    };
    table.give(asking, &chosen, b"answer".to_vec());
    Ok(chosen)
}

fn container(name: &str, kind: Kind, count: u64) -> Container {
    Container {
        name: name.into(),
        kind,
        cpu_millis: 0,
        memory: BTreeMap::new(),
        extended: [(GPU.to_owned(), count)].into(),
    }
}

fn pod(containers: Vec<Container>) -> Pod {
    Pod { uid: "p".into(), guaranteed: false, pod_level: false, containers }
}

/// State files that upstream's kubelets have written.
#[test]
fn upstreams_files_are_read_and_written_to_the_byte() {
    let empty = r#"{"Data":{"PodDeviceEntries":null,"RegisteredDevices":{"nvidia.com/gpu":["GPU-0650a168-e770-3ea8-8ac3-8a1d419763e0"]}},"Checksum":3952659280}"#;
    let one = r#"{"Data":{"PodDeviceEntries":[{"PodUID":"bf52b2cd-b611-4e79-86b1-280b283185c3","ContainerName":"check","ResourceName":"nvidia.com/gpu","DeviceIDs":{"-1":["tegra"]},"AllocResp":"Ch8KFk5WSURJQV9WSVNJQkxFX0RFVklDRVMSBXRlZ3Jh"}],"RegisteredDevices":{"nvidia.com/gpu":["tegra"]}},"Checksum":3660592824}"#;
    for (text, ids) in [(empty, "GPU-0650a168-e770-3ea8-8ac3-8a1d419763e0"), (one, "tegra")] {
        let (given, resources) = file::parse(text).unwrap();
        assert_eq!(resources, names(&["nvidia.com/gpu"]));
        let registered = [("nvidia.com/gpu".to_owned(), vec![ids.to_owned()])].into();
        assert_eq!(file::text(&given, registered), text);
    }
    let damaged = one.replace("tegra", "other");
    assert_eq!(file::parse(&damaged).unwrap_err(), "checkpoint is corrupted");
}

#[test]
fn a_damaged_file_is_not_believed_and_nothing_stops() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("kubelet_internal_checkpoint"), "{").unwrap();
    let table = DeviceTable::open(dir.path(), vec![0]);
    assert!(table.registered().is_empty() && !table.has_pod("p"));
}

#[test]
fn devices_near_to_the_hint_come_first_then_the_others() {
    let (_dir, mut table) = table();
    assert_eq!(give(&mut table, asking("p", "c1", 1), near(1)), Ok(names(&["b0"])));
    assert_eq!(give(&mut table, asking("p", "c2", 2), near(1)), Ok(names(&["a0", "b1"])));
    assert_eq!(give(&mut table, asking("p", "c3", 2), Hint::any(true)), Ok(names(&["a1", "c"])));
    let none = give(&mut table, asking("q", "c", 1), Hint::any(true)).unwrap_err();
    assert_eq!(
        none,
        "requested number of devices unavailable for example.com/gpu. Requested: 1, Available: 0"
    );
    table.retain(|uid| uid != "p");
    assert_eq!(give(&mut table, asking("q", "c", 1), near(0)), Ok(names(&["a0"])));
}

#[test]
fn a_plugin_has_a_say_among_what_is_near() {
    let (_dir, mut table) = table();
    let ask = |table: &mut DeviceTable, count, preferred: &[&str]| {
        let Choice::Ask(asked) = table.choose(asking("p", "c", count), near(1)).unwrap() else {
            panic!("nothing asked")
        };
        let chosen = table.choose_preferred(GPU, asked.clone(), &names(preferred));
        table.release();
        (asked, chosen.unwrap())
    };
    let (asked, chosen) = ask(&mut table, 1, &["a0", "b1"]);
    assert_eq!((&asked.available, asked.size), (&names(&["b0", "b1"]), 1));
    // What it prefers elsewhere is not near.
    assert_eq!(chosen, names(&["b1"]));
    let (asked, chosen) = ask(&mut table, 3, &["c"]);
    assert_eq!(asked.must_include, names(&["b0", "b1"]));
    assert_eq!(asked.available, names(&["a0", "a1", "b0", "b1", "c"]));
    assert_eq!(chosen, names(&["b0", "b1", "c"]));
}

#[test]
fn refusals_have_upstreams_words() {
    let (_dir, mut table) = table();
    let other = Asking { uid: "p", container: "c", resource: "example.com/none", count: 1 };
    let say = |table: &mut DeviceTable, asking| give(table, asking, Hint::any(true)).unwrap_err();
    assert_eq!(say(&mut table, other), "cannot allocate unregistered device example.com/none");
    give(&mut table, asking("p", "c", 2), near(0)).unwrap();
    assert_eq!(give(&mut table, asking("p", "c", 2), near(0)), Ok(Names::new()));
    assert_eq!(
        say(&mut table, asking("p", "c", 3)),
        r#"pod "p" container "c" changed request for resource "example.com/gpu" from 2 to 3"#
    );
    let mut sick = device(&[0]);
    sick.healthy = false;
    let all = BTreeMap::from([("a0".to_owned(), sick), ("a1".to_owned(), device(&[0]))]);
    // It is told whose health changed: `a0` became sick, and nobody has another one.
    assert_eq!(table.update(GPU, all), names(&["p"]));
    assert_eq!(
        say(&mut table, asking("p", "c", 2)),
        "previously allocated devices are no longer healthy; cannot allocate unhealthy devices example.com/gpu"
    );
    assert!(!table.is_healthy(GPU, "a0") && table.is_healthy(GPU, "a1"));
    table.mark_unhealthy(GPU);
    assert_eq!(table.counts()[GPU], (0, 2));
    assert_eq!(
        say(&mut table, asking("q", "c", 1)),
        "no healthy devices present; cannot allocate unhealthy devices example.com/gpu"
    );
}

#[test]
fn later_containers_use_what_init_containers_had() {
    let (_dir, mut table) = table();
    table.begin_pod("p");
    let first = give(&mut table, asking("p", "init", 2), near(0)).unwrap();
    table.note_reusable("p", "init", true);
    let side = give(&mut table, asking("p", "side", 1), near(0)).unwrap();
    table.note_reusable("p", "side", false);
    assert!(first.is_superset(&side), "{side:?}");
    let rest = give(&mut table, asking("p", "main", 2), Hint::any(true)).unwrap();
    assert!(rest.is_disjoint(&side) && rest.intersection(&first).count() == 1, "{rest:?}");
    assert_eq!(table.allocated()[GPU], 3);
    // Another pod has no part in it.
    table.begin_pod("q");
    let other = give(&mut table, asking("q", "main", 2), Hint::any(true)).unwrap();
    assert!(other.is_disjoint(&first) && other.is_disjoint(&rest));
}

#[test]
fn what_was_given_survives_a_restart_and_plugins_register_anew() {
    let (dir, mut table) = table();
    assert!(table.is_new());
    give(&mut table, asking("p", "c", 2), near(0)).unwrap();
    table.store();
    let mut again = DeviceTable::open(dir.path(), vec![0, 1]);
    assert!(!again.is_new());
    assert_eq!(again.registered(), [GPU]);
    assert_eq!((again.counts()[GPU], again.allocated()[GPU]), ((0, 0), 2));
    assert_eq!(again.of("p", "c").unwrap()[GPU].answer, b"answer");
    assert!(again.choose(asking("q", "c", 1), Hint::any(true)).is_err());
    again.forget(GPU);
    assert!(again.registered().is_empty() && again.is_known(GPU), "a container still has some");
}

#[test]
fn hints_are_of_the_nodes_that_have_enough() {
    let (_dir, mut table) = table();
    let mask = |nodes: &[usize]| NumaMask::of(nodes.iter().copied());
    let hint = |nodes: &[usize], preferred| Hint::new(mask(nodes), preferred);
    let of = |table: &DeviceTable, count| {
        let own = container("c", Kind::Regular, count);
        table.hints(&pod(vec![own.clone()]), &own)[GPU].clone()
    };
    let two = vec![hint(&[0], true), hint(&[1], true), hint(&[0, 1], false)];
    assert_eq!(of(&table, 2), Some(two));
    assert_eq!(of(&table, 3), Some(vec![hint(&[0, 1], true)]));
    assert_eq!(of(&table, 9), Some(Vec::new()));
    give(&mut table, asking("q", "c", 1), near(0)).unwrap();
    assert_eq!(of(&table, 2), Some(vec![hint(&[1], true), hint(&[0, 1], false)]));
    let both = [container("i", Kind::Init, 3), container("c", Kind::Regular, 1)];
    assert_eq!(table.pod_hints(&pod(both.into()))[GPU], Some(vec![hint(&[0, 1], true)]));
    // What a container has, it has from where it is.
    give(&mut table, asking("p", "c", 2), near(1)).unwrap();
    let again = container("c", Kind::Regular, 2);
    let seen = table.hints(&pod(vec![again.clone()]), &again);
    assert_eq!(seen[GPU], Some(vec![hint(&[1], true), hint(&[0, 1], false)]));
    table.update("example.com/plain", [("x".to_owned(), device(&[]))].into());
    let mut plain = container("c", Kind::Regular, 0);
    plain.extended = [("example.com/plain".to_owned(), 1), ("example.com/no".to_owned(), 1)].into();
    let seen = table.hints(&pod(vec![plain.clone()]), &plain);
    assert_eq!(seen, [("example.com/plain".to_owned(), None)].into());
}
