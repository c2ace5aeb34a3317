//! Hierarchies found, limits planned, a v2 tree written in a temporary directory, the device program.
use std::os::fd::OwnedFd;

use super::devices::{DEFAULT_DEVICES, attach_program, program};
use super::limits::{v1, v2, weight};
use super::*;
use crate::cri::{HugepageLimit, LinuxContainerResources};

fn resources() -> LinuxContainerResources {
    LinuxContainerResources {
        cpu_shares: 512,
        cpu_quota: 50_000,
        cpu_period: 100_000,
        memory_limit_in_bytes: 64 << 20,
        cpuset_cpus: "0".to_owned(),
        hugepage_limits: vec![HugepageLimit { page_size: "2MB".to_owned(), limit: 0 }],
        ..Default::default()
    }
}

fn shown(list: &[limits::Setting]) -> Vec<String> {
    list.iter().map(|s| format!("{}={}", s.file, s.value)).collect()
}

#[test]
fn hierarchies_are_read_from_mountinfo() {
    let text = "30 25 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
                32 30 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
                33 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n\
                34 30 0:30 / /other rw - cgroup cgroup rw,pids\n";
    let found = parse(text, Path::new("/sys/fs/cgroup"));
    assert_eq!(found.v1("cpuacct"), Some(Path::new("/sys/fs/cgroup/cpu,cpuacct")));
    assert_eq!(found.v1("name=systemd"), Some(Path::new("/sys/fs/cgroup/systemd")));
    assert_eq!(found.v1("pids"), None);
    assert!(!found.is_v2() && found.has("cpu"));
    assert!(!found.has("pids") && !found.has("hugetlb"), "the unified tree hands none down");
    assert_eq!(found.unified, Some(PathBuf::from("/sys/fs/cgroup/unified")));
}

/// Upstream's kubelet names the limits of all sizes for every container.
#[test]
fn limits_of_huge_pages_are_left_out_where_groups_have_none() {
    let root = tempfile::tempdir().unwrap();
    let group = |dir: &Path| Group { v1: Vec::new(), unified: Some(dir.to_owned()) };
    let values = LinuxContainerResources {
        hugepage_limits: vec![HugepageLimit { page_size: "2MB".to_owned(), limit: 4 << 20 }],
        ..Default::default()
    };
    group(root.path()).apply(&values).unwrap();
    let file = root.path().join("hugetlb.2MB.max");
    assert!(!file.exists());
    fs::write(&file, "max").unwrap();
    group(root.path()).apply(&values).unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), "4194304");
}

#[test]
fn limits_of_v1() {
    assert_eq!(
        shown(&v1(&resources())),
        [
            "cpu.shares=512",
            "cpu.cfs_period_us=100000",
            "cpu.cfs_quota_us=50000",
            "cpuset.cpus=0",
            "memory.limit_in_bytes=67108864",
            "memory.memsw.limit_in_bytes=67108864",
            "hugetlb.2MB.limit_in_bytes=0"
        ]
    );
}

#[test]
fn limits_of_v2() {
    let mut wanted = resources();
    wanted.unified.insert("memory.oom.group".to_owned(), "1".to_owned());
    assert_eq!(
        shown(&v2(&wanted).unwrap()),
        [
            "cpu.weight=59",
            "cpu.max=50000 100000",
            "cpuset.cpus=0",
            "memory.max=67108864",
            "memory.swap.max=0",
            "hugetlb.2MB.max=0",
            "memory.oom.group=1"
        ]
    );
    wanted.unified.insert("../x.y".to_owned(), "1".to_owned());
    assert!(v2(&wanted).is_err());
}

#[test]
fn weights_fit_their_fixed_points() {
    assert_eq!([2, 1024, 262_144].map(weight), [1, 100, 10_000]);
}

#[test]
fn a_v2_tree_gets_its_controllers_and_limits() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("cgroup.controllers"), "cpu memory pids").unwrap();
    fs::write(root.path().join("cgroup.subtree_control"), "cpu").unwrap();
    let all = Hierarchies::unified_at(root.path());
    let group = all.create("/pod").unwrap();
    let control = fs::read_to_string(root.path().join("cgroup.subtree_control")).unwrap();
    assert_eq!(control, "+pids", "the last one written: memory and pids were off");
    let limits =
        LinuxContainerResources { cpu_quota: -1, memory_limit_in_bytes: 5, ..Default::default() };
    group.apply(&limits).unwrap();
    let read = |file: &str| fs::read_to_string(root.path().join("pod").join(file)).unwrap();
    assert_eq!([read("cpu.max"), read("memory.max")], ["max 100000", "5"]);
    assert!(all.create("/a/../b").is_err());
}

/// Another thread, or a process that was killed, came no further than to make the directory.
#[test]
fn a_group_that_was_only_half_made_is_made_whole() {
    let root = tempfile::tempdir().unwrap();
    let half = root.path().join("pods");
    fs::create_dir(&half).unwrap();
    let cpus = [root.path().join("cpuset.cpus"), half.join("cpuset.cpus")];
    for (dir, value) in [(root.path(), "0-1\n"), (&half, "\n")] {
        fs::write(dir.join("cpuset.cpus"), value).unwrap();
        fs::write(dir.join("cpuset.mems"), value).unwrap();
    }
    let v1 = V1 { controllers: vec!["cpuset".to_owned()], mount: root.path().to_owned() };
    Hierarchies { v1: vec![v1], unified: None }.create("/pods").unwrap();
    assert_eq!(cpus.map(|file| fs::read_to_string(file).unwrap()), ["0-1\n", "0-1\n"]);

    for dir in [root.path(), &half] {
        fs::write(dir.join("cgroup.controllers"), "memory").unwrap();
    }
    let v2 = Hierarchies::unified_at(root.path());
    assert!(v2.has("memory") && !v2.has("cpu"));
    v2.create("/pods/one").unwrap();
    for dir in [root.path(), &half] {
        let control = fs::read_to_string(dir.join("cgroup.subtree_control")).unwrap();
        assert_eq!(control, "+memory", "{}", dir.display());
    }
}

#[test]
fn the_device_program_passes_the_verifier() {
    let all = Hierarchies::detect(Path::new("/sys/fs/cgroup")).unwrap();
    let Some(unified) = all.unified.clone().filter(|_| rustix::process::getuid().is_root()) else {
        return;
    };
    let dir = unified.join(format!("trireme-test-devices-{}", std::process::id()));
    fs::create_dir(&dir).unwrap();
    let fd: OwnedFd = fs::File::open(&dir).unwrap().into();
    let attached = attach_program(&fd, &program(&DEFAULT_DEVICES));
    fs::remove_dir(&dir).unwrap();
    attached.unwrap();
}
