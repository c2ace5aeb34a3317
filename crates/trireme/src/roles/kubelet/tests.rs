//! What flags say.

use super::{address_towards, below, frequency, header, label, manifest_url, taint};

#[test]
fn labels_and_taints_are_read_as_the_original_reads_them() {
    assert_eq!(label("a/b=c"), Ok(("a/b".to_owned(), "c".to_owned())));
    assert!(label("a").is_err());
    assert!(label("node.kubernetes.io/a=b").is_ok());
    let told = label("node-role.kubernetes.io/worker=").unwrap_err();
    assert!(told.contains("--node-labels: [node-role.kubernetes.io/worker]"), "{told}");
    let full = taint("k=v:NoExecute").unwrap();
    assert_eq!((full.key.as_str(), full.value.as_deref()), ("k", Some("v")));
    assert_eq!(full.effect, "NoExecute");
    assert_eq!(taint("k:NoSchedule").unwrap().value, None);
    assert!(taint("k=v").is_err());
    assert!(taint("k=v:Never").unwrap_err().contains("Never"));
    assert!(taint(":NoSchedule").is_err());
}

#[test]
fn a_loopback_server_does_not_give_the_node_its_address() {
    let told = address_towards("https://127.0.0.1:6443").unwrap_err().to_string();
    assert!(told.contains("--node-ip"), "{told}");
}

#[test]
fn cgroups_lie_below_the_root_that_is_given() {
    assert_eq!(below("/", "kubepods"), "/kubepods");
    assert_eq!(below("/a/b", "kubepods"), "/a/b/kubepods");
}

#[test]
fn sources_of_static_pods_are_checked() {
    assert_eq!(header("X-Key: v"), Ok(("X-Key".to_owned(), "v".to_owned())));
    assert!(header("X-Key").is_err() && header(":v").is_err() && header("a:").is_err());
    assert!(manifest_url("https://x/pods").is_ok() && manifest_url("file:///x").is_err());
    assert!(frequency("20s").is_ok() && frequency("0s").is_err() && frequency("-1s").is_err());
}
