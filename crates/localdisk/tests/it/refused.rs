//! What the driver refuses, and with which code.

use std::io::Write as _;

use csi::v1::*;

use crate::rig::{MIB, Rig, assert_refused, block, from_volume, map, mounted, of_size, one_writer};

#[tokio::test]
async fn requests_that_no_volume_can_meet() {
    let rig = Rig::new();
    let unknown =
        CreateVolumeRequest { parameters: map(&[("replicas", "3")]), ..of_size("v", MIB) };
    assert_refused(rig.create(unknown).await, "InvalidArgument", "\"replicas\" is unknown");
    let elsewhere = [("topology.local.csi.trireme.dev/node", "n2")];
    let elsewhere = Topology { segments: map(&elsewhere) };
    let requirement = TopologyRequirement { requisite: vec![elsewhere.clone()], preferred: vec![] };
    let request =
        CreateVolumeRequest { accessibility_requirements: Some(requirement), ..of_size("v", MIB) };
    assert_refused(rig.create(request).await, "ResourceExhausted", "would be on node n1");
    let capacity =
        GetCapacityRequest { accessible_topology: Some(elsewhere), ..Default::default() };
    assert_eq!(rig.client.get_capacity(&capacity).await.unwrap().available_capacity, 0);
    let many = VolumeCapability {
        access_mode: Some(AccessMode { mode: Mode::MultiNodeMultiWriter as i32 }),
        ..mounted()
    };
    let request = CreateVolumeRequest { volume_capabilities: vec![many], ..of_size("v", MIB) };
    assert_refused(rig.create(request).await, "InvalidArgument", "on one node's disk");
    assert_refused(rig.create(of_size("v", 1 << 60)).await, "OutOfRange", "than a volume can have");
    assert_eq!(std::fs::read_dir(rig.root().join("volumes")).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(rig.root().join("making")).unwrap().count(), 0);
}

#[tokio::test]
async fn more_than_the_disk_has_is_refused_before_it_is_full() {
    let rig = Rig::new();
    let free = || async {
        let answer = rig.client.get_capacity(&GetCapacityRequest::default()).await;
        answer.unwrap().available_capacity
    };
    let before = free().await;
    // Nearly all that is there is promised to one volume, which has taken nothing of it yet.
    let most = (before / 10 * 9) as u64;
    let most = CreateVolumeRequest { ..of_size("most", most.min((16 << 40) - (1 << 30))) };
    rig.create(most).await.unwrap();
    assert!(free().await < before / 5, "what is promised is not free");
    let refused = rig.create(of_size("more", (before / 2) as u64)).await;
    assert_refused(refused, "ResourceExhausted", "not enough room below");
    assert_refused(rig.expand("most", before as u64 * 2).await, "ResourceExhausted", "available");
    rig.delete("most").await.unwrap();
    assert!(free().await > before / 2, "given back");
}

#[tokio::test]
async fn another_volume_of_a_known_name() {
    let rig = Rig::new();
    rig.create(of_size("v", 16 * MIB)).await.unwrap();
    rig.create(of_size("v", 16 * MIB)).await.unwrap();
    let larger = rig.create(of_size("v", 17 * MIB)).await;
    assert_refused(larger, "AlreadyExists", "another size or source");
    rig.create(of_size("w", 16 * MIB)).await.unwrap();
    let clone =
        CreateVolumeRequest { volume_content_source: from_volume("v"), ..of_size("w", 16 * MIB) };
    assert_refused(rig.create(clone).await, "AlreadyExists", "another size or source");
    rig.snapshot("v", "s").await.unwrap();
    assert_refused(rig.snapshot("w", "s").await, "AlreadyExists", "of volume \"v\"");
}

#[tokio::test]
async fn uses_that_exclude_each_other() {
    let rig = Rig::new();
    rig.create(of_size("v", 16 * MIB)).await.unwrap();
    assert_refused(rig.publish("v", "p", mounted()).await, "FailedPrecondition", "is not staged");
    rig.stage("v", one_writer()).await.unwrap();
    rig.publish("v", "one", one_writer()).await.unwrap();
    rig.publish("v", "one", one_writer()).await.unwrap();
    let second = rig.publish("v", "two", one_writer()).await;
    assert_refused(second, "FailedPrecondition", "has one writer");
    assert_refused(rig.delete("v").await, "FailedPrecondition", "is in use at");
    rig.unmount("v", "one").await;
    rig.delete("v").await.unwrap();
    assert_refused(rig.stage("v", mounted()).await, "NotFound", "volume \"v\" not found");
    let relative = NodePublishVolumeRequest {
        target_path: "../somewhere".into(),
        ..rig.publication("v", "p", mounted())
    };
    let relative = rig.client.node_publish_volume(&relative).await;
    assert_refused(relative, "InvalidArgument", "not an absolute path");
}

#[tokio::test]
async fn data_of_a_block_volume_is_never_formatted() {
    let rig = Rig::new();
    let request =
        CreateVolumeRequest { volume_capabilities: vec![block()], ..of_size("b", 16 * MIB) };
    rig.create(request).await.unwrap();
    rig.stage("b", block()).await.unwrap();
    rig.publish("b", "device", block()).await.unwrap();
    let mut device = std::fs::OpenOptions::new().write(true).open(rig.path("device")).unwrap();
    device.write_all(&[1; 4096]).unwrap();
    device.sync_all().unwrap();
    drop(device);
    let read_only =
        NodePublishVolumeRequest { readonly: true, ..rig.publication("b", "ro", block()) };
    let read_only = rig.client.node_publish_volume(&read_only).await;
    assert_refused(read_only, "InvalidArgument", "cannot be published read-only");
    rig.unmount("b", "device").await;
    assert_refused(rig.stage("b", mounted()).await, "FailedPrecondition", "no file system");
}
