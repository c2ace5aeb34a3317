use super::*;
use crate::cri::{CDIDevice, LinuxContainerConfig, Mount};

struct Folders(tempfile::TempDir, Vec<PathBuf>);

fn folders() -> Folders {
    let dir = tempfile::tempdir().unwrap();
    let all: Vec<_> = ["etc", "run"].iter().map(|name| dir.path().join(name)).collect();
    all.iter().for_each(|folder| fs::create_dir(folder).unwrap());
    Folders(dir, all)
}

impl Folders {
    fn put(&self, name: &str, text: &str) {
        fs::write(self.0.path().join(name), text).unwrap();
    }
}

fn asking(names: &[&str]) -> ContainerConfig {
    let devices = names.iter().map(|name| CDIDevice { name: (*name).to_owned() });
    ContainerConfig { cdi_devices: devices.collect(), ..ContainerConfig::default() }
}

fn said(folders: &Folders, names: &[&str]) -> String {
    inject(&mut asking(names), &folders.1).unwrap_err().chain()
}

const GPU: &str = r#"
cdiVersion: "0.6.0"
kind: vendor.com/gpu
containerEdits:
  env: ["ALL=1"]
  mounts:
  - {hostPath: /etc/hostname, containerPath: /gpu/host, options: [ro, nosuid, nodev, rbind]}
devices:
- name: "0"
  containerEdits:
    env: ["GPU=0", "OWN=device"]
    deviceNodes:
    - {path: /dev/gpu0, hostPath: /dev/null, permissions: rw}
- name: "1"
  containerEdits:
    env: ["GPU=1"]
    deviceNodes:
    - {path: /dev/gpu1, type: c, major: 1, minor: 5, fileMode: 384, uid: 7, gid: 8}
    additionalGids: [0, 44]
"#;

#[test]
fn devices_bring_nodes_mounts_variables_and_groups() {
    let folders = folders();
    folders.put("etc/gpu.yaml", GPU);
    let mut config = asking(&["vendor.com/gpu=0", "vendor.com/gpu=1"]);
    config.envs = vec![KeyValue { key: "OWN".into(), value: b"mine".to_vec() }];
    config.mounts = vec![Mount { container_path: "/gpu/host".into(), ..Mount::default() }];
    let edits = inject(&mut config, &folders.1).unwrap();
    let envs: Vec<_> = config
        .envs
        .iter()
        .map(|e| format!("{}={}", e.key, String::from_utf8_lossy(&e.value)))
        .collect();
    // A variable of a device takes the place of the container's, and of an earlier device's.
    assert_eq!(envs, ["ALL=1", "OWN=device", "GPU=1"]);
    assert!(config.mounts.is_empty());
    let mount = &edits.mounts[0];
    assert_eq!(
        (&*mount.source, &*mount.target, mount.read_only),
        ("/etc/hostname", "/gpu/host", true)
    );
    assert_eq!(mount.attributes, libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV);
    let nodes: Vec<_> =
        edits.nodes.iter().map(|n| (n.path.as_str(), n.mode, n.device, n.uid, n.gid)).collect();
    let null = libc::S_IFCHR | 0o666;
    assert_eq!(
        nodes,
        [
            ("/dev/gpu0", null, libc::makedev(1, 3), None, None),
            ("/dev/gpu1", libc::S_IFCHR | 0o600, libc::makedev(1, 5), Some(7), Some(8)),
        ]
    );
    assert!(edits.nodes.iter().all(|node| node.rule().is_some()));
    let groups = config.linux.and_then(|l: LinuxContainerConfig| l.security_context).unwrap();
    assert_eq!(groups.supplemental_groups, [44]);
}

#[test]
fn later_folders_win_and_equals_conflict() {
    let folders = folders();
    let one = |value: &str| {
        format!(
            r#"{{"cdiVersion": "1.0.0", "kind": "v.com/c", "devices": [{{"name": "d", "containerEdits": {{"env": ["A={value}"]}}}}]}}"#
        )
    };
    folders.put("etc/a.json", &one("etc"));
    folders.put("etc/b.json", &one("other"));
    folders.put("etc/c.txt", "no spec");
    assert!(said(&folders, &["v.com/c=d"]).contains("unresolvable CDI devices v.com/c=d"));
    assert!(scan(&folders.1).faults[0].starts_with("conflicting device \"v.com/c=d\""));
    folders.put("run/a.json", &one("run"));
    let mut config = asking(&["v.com/c=d"]);
    inject(&mut config, &folders.1).unwrap();
    assert_eq!(config.envs[0].value, b"run");
}

#[test]
fn what_cannot_be_given_is_refused_by_name() {
    let folders = folders();
    let edits = [
        ("hooks: [{hookName: createContainer, path: /bin/x}]", "CDI hooks (createContainer)"),
        ("netDevices: [{hostInterfaceName: e, name: f}]", "CDI network devices"),
        ("intelRdt: {closID: a}", "CDI edits of Intel RDT"),
        ("mounts: [{hostPath: /, containerPath: /m, type: tmpfs}]", "type tmpfs"),
        ("mounts: [{hostPath: /, containerPath: /m, options: [noatime]}]", "option noatime"),
        ("mounts: [{hostPath: /, containerPath: m}]", "is not absolute"),
        ("mounts: [{hostPath: /none/there, containerPath: /m}]", "/none/there"),
        ("deviceNodes: [{path: /dev/none-there}]", "/dev/none-there"),
        ("deviceNodes: [{path: /etc/hostname}]", "not a device node"),
        ("deviceNodes: [{path: /dev/null, type: b}]", "host type mismatch"),
    ];
    for (edit, why) in edits {
        let text = format!(
            "cdiVersion: 1.1.0\nkind: v.com/c\ndevices: [{{name: d, containerEdits: {{{edit}}}}}]"
        );
        folders.put("etc/a.yaml", &text);
        let said = said(&folders, &["v.com/c=d"]);
        assert!(said.contains(why), "{said}");
    }
}

#[test]
fn files_that_break_the_rules_are_not_believed() {
    let device = "devices: [{name: d, containerEdits: {env: [A=1]}}]";
    let refused = [
        (format!("cdiVersion: 9.0.0\nkind: v.com/c\n{device}"), "invalid version \"9.0.0\""),
        (format!("cdiVersion: 1.0.0\nkind: c\n{device}"), "invalid vendor/class \"c\" in Spec"),
        ("cdiVersion: 1.0.0\nkind: v.com/c".into(), "invalid spec, no devices"),
        (
            "cdiVersion: 1.0.0\nkind: v.com/c\ndevices: [{name: d}]".into(),
            "empty device edits",
        ),
        (
            format!("cdiVersion: 1.0.0\nkind: v.com/c\n{}", device.replace("A=1", "A")),
            "invalid environment variable \"A\"",
        ),
        (format!("cdiVersion: 1.0.0\nkind: v.com/c\n{}", device.replace("d,", "d-,")), "invalid device name"),
        (
            "cdiVersion: 1.0.0\nkind: v.com/c\ndevices: [{name: d, containerEdits: {deviceNodes: [{path: /d, permissions: rx}]}}]".into(),
            "invalid permissions \"rx\"",
        ),
        ("[".into(), "failed to unmarshal CDI Spec"),
    ];
    for (text, why) in refused {
        let said = spec::parse(&text).unwrap_err();
        assert!(said.contains(why), "{said}");
    }
}
