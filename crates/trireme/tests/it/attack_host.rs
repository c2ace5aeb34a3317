//! A cluster and its host: who may look in, whom `down` ends, what the process survives.

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use crate::harness::Cluster;
use crate::netns::Netns;

fn proc_file(pid: u64, file: &str) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/{file}")).expect("the process lives")
}

fn pid_of(cluster: &Cluster) -> u64 {
    cluster.status()["pid"].as_u64().expect("a process id")
}

/// A command as an ordinary user of the host.
fn as_nobody(program: &str, args: &[&str]) -> bool {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", program]).args(args);
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("setpriv runs").success()
}

#[test]
fn the_process_is_protected_and_its_files_are_roots() {
    let cluster = Cluster::up("own", &[]);
    let pid = pid_of(&cluster);
    // Field 6 of stat(5), the fourth after the name: a session of its own, without a terminal.
    let stat = proc_file(pid, "stat");
    let fields: Vec<&str> = stat.rsplit(") ").next().expect("fields").split(' ').collect();
    assert_eq!((fields[3], fields[4]), (pid.to_string().as_str(), "0"), "{stat}");

    // Its place is part of the group's name: this cluster's is not the usual one.
    let cgroups = proc_file(pid, "cgroup");
    let group = format!("/trireme/{}-", cluster.name());
    let own = cgroups.lines().find_map(|line| line.find(&group).map(|at| &line[at..]));
    let own = own.expect("a group of its own").to_owned();
    assert!(own.ends_with("/system"), "{cgroups}");
    let group = own.trim_start_matches("/trireme/").trim_end_matches("/system");
    let limits = proc_file(pid, "limits");
    let files = limits.lines().find(|line| line.starts_with("Max open files")).expect("a line");
    let words: Vec<&str> = files.split_whitespace().collect();
    assert_eq!(words[3], words[4], "raised to what it may have: {files}");

    let path = "jsonpath={.items[0].status.allocatable.memory}";
    let allocatable = cluster.kubectl(&["get", "nodes", "-o", path]);
    let kib: u64 = allocatable.trim().trim_end_matches("Ki").parse().expect("kibibytes");
    let allocatable = kib * 1024;
    let limit = ["memory/trireme/NAME/0/memory.limit_in_bytes", "trireme/NAME/0/memory.max"]
        .map(|file| format!("/sys/fs/cgroup/{}", file.replace("NAME", group)))
        .iter()
        .find_map(|file| std::fs::read_to_string(file).ok());
    let limit: u64 = limit.expect("a limit of pods' memory").trim().parse().expect("bytes");
    assert!(allocatable < limit, "{allocatable} of {limit}");

    let folder = cluster.folder();
    let parent = folder.parent().expect("a parent");
    std::fs::set_permissions(parent, std::fs::Permissions::from_mode(0o755)).expect("opened");
    let shown = folder.to_string_lossy();
    assert!(as_nobody("ls", &[&parent.to_string_lossy()]), "the user gets as far as the folder");
    for inside in ["", "/n0", "/pki", "/kubeconfig", "/control.sock", "/db"] {
        let path = format!("{shown}{inside}");
        assert!(!as_nobody("ls", &["-l", &format!("{path}/.")]), "{path}");
        assert!(!as_nobody("cat", &[&path]), "{path}");
    }
    cluster.trireme(&["down", "--name", cluster.name()]);
    assert!(!std::path::Path::new("/sys/fs/cgroup/memory").join(&own[1..]).exists());
}

#[test]
fn down_ends_the_cluster_and_nobody_else() {
    let cluster = Cluster::up("pid", &[]);
    cluster.kill();
    let mut bystander = Command::new("sleep").arg("600").spawn().expect("sleep runs");
    // The id was given to another process meanwhile.
    let record = cluster.folder().join("cluster.json");
    let text = std::fs::read_to_string(&record).expect("a record");
    let mut value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    value["pid"] = bystander.id().into();
    std::fs::write(&record, value.to_string()).expect("written");
    std::fs::write(cluster.folder().join("trireme.lock"), bystander.id().to_string())
        .expect("written");
    let status = cluster.trireme_fails(&["status", "--name", cluster.name()]);
    assert!(status.contains("is not running"), "{status}");
    cluster.trireme(&["down", "--name", cluster.name()]);
    assert!(bystander.try_wait().expect("a child").is_none(), "it was not ended");
    bystander.kill().expect("ours");
    bystander.wait().expect("ours");
}

#[test]
fn one_of_two_starts_at_once_is_refused() {
    let cluster = Cluster::up("two", &[]);
    cluster.trireme(&["down", "--name", cluster.name()]);
    let outputs =
        cluster.trireme_twice(&["up", "-d", "--host-routes=none", "--name", cluster.name()]);
    let started = outputs.iter().filter(|output| output.status.success()).count();
    assert_eq!(started, 1, "{outputs:?}");
    let refused = outputs.iter().find(|output| !output.status.success()).expect("one");
    let told = String::from_utf8_lossy(&refused.stderr);
    assert!(told.contains("is running already"), "{told}");
    assert!(cluster.kubectl(&["get", "--raw", "/readyz"]).contains("ok"));
}

#[test]
fn the_host_cannot_dial_the_nodes_by_its_default_route() {
    let (host, _internet) = Netns::host_and_internet();
    // The host uses one of the ranges itself.
    host.ip(&["route", "add", "10.43.0.0/17", "via", "192.0.2.2"]);
    let before = host.ip(&["route"]);
    let cluster = Cluster::inside("far", host, &[]);
    let said = cluster.said();
    assert!(said.contains("10.43.0.0/16 is routed on this host already"), "{said}");
    for address in ["10.89.0.2", "10.42.0.5"] {
        let mut get = cluster.host().command("ip");
        let output = get.args(["route", "get", address]).output().expect("ip runs");
        assert!(!output.status.success(), "{address}: {output:?}");
    }
    let own = cluster.host().ip(&["route", "get", "10.43.0.10"]);
    assert!(own.contains("via 192.0.2.2"), "{own}");
    let second = cluster.beside("near");
    second.trireme(&["down", "--name", second.name()]);
    assert!(cluster.host().ip(&["route"]).contains("unreachable 10.89.0.0/24"), "its own stay");
    // Also after the process was killed.
    cluster.kill();
    cluster.trireme(&["down", "--name", cluster.name()]);
    assert_eq!(cluster.host().ip(&["route"]), before);
}
