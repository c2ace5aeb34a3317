//! Snapshots, clones and groups, also of volumes that are in use.

use csi::v1::*;

use crate::rig::{MIB, Rig, assert_refused, from_snapshot, from_volume, of_size};

#[tokio::test]
async fn a_snapshot_of_a_volume_in_use_is_restored_into_a_larger_one() {
    let rig = Rig::new();
    rig.create(of_size("v", 64 * MIB)).await.unwrap();
    let at = rig.mount("v", "pod").await;
    // Not synced: the snapshot has it all the same.
    std::fs::write(at.join("file"), "before").unwrap();
    let snapshot = rig.snapshot("v", "s").await.unwrap();
    assert!(snapshot.ready_to_use && snapshot.size_bytes == 64 << 20);
    std::fs::write(at.join("file"), "after").unwrap();
    assert_eq!(rig.snapshot("v", "s").await.unwrap(), snapshot, "again");
    rig.unmount("v", "pod").await;
    rig.delete("v").await.unwrap();
    let restored = CreateVolumeRequest {
        volume_content_source: from_snapshot("s"),
        ..of_size("r", 256 * MIB)
    };
    let volume = rig.create(restored.clone()).await.unwrap();
    assert_eq!(volume.content_source, from_snapshot("s"));
    let at = rig.mount("r", "pod").await;
    assert_eq!(std::fs::read_to_string(at.join("file")).unwrap(), "before");
    assert!(rig.total("r", "pod").await > 200 << 20, "as large as the volume");
    let delete = DeleteSnapshotRequest { snapshot_id: "s".into(), secrets: vec![] };
    rig.client.delete_snapshot(&delete).await.unwrap();
    rig.client.delete_snapshot(&delete).await.unwrap();
    assert_eq!(std::fs::read_to_string(at.join("file")).unwrap(), "before");
    let again = CreateVolumeRequest { name: "r2".into(), ..restored };
    assert_refused(rig.create(again).await, "NotFound", "snapshot \"s\" not found");
    rig.unmount("r", "pod").await;
}

#[tokio::test]
async fn a_clone_goes_its_own_way() {
    let rig = Rig::new();
    rig.create(of_size("v", 32 * MIB)).await.unwrap();
    let at = rig.mount("v", "pod").await;
    std::fs::write(at.join("file"), "one").unwrap();
    let clone =
        CreateVolumeRequest { volume_content_source: from_volume("v"), ..of_size("c", 32 * MIB) };
    rig.create(clone).await.unwrap();
    let other = rig.mount("c", "other").await;
    std::fs::write(other.join("file"), "two").unwrap();
    assert_eq!(std::fs::read_to_string(at.join("file")).unwrap(), "one");
    rig.unmount("c", "other").await;
    rig.unmount("v", "pod").await;
}

#[tokio::test]
async fn a_file_system_that_a_killed_driver_left_frozen_is_thawed() {
    let mut rig = Rig::new();
    rig.create(of_size("v", 32 * MIB)).await.unwrap();
    let at = rig.mount("v", "pod").await;
    // What a driver has done that is killed while it copies.
    let marker = serde_json::to_vec(&at).unwrap();
    std::fs::write(rig.root().join("frozen/v"), marker).unwrap();
    let open = std::fs::File::open(&at).unwrap();
    // SAFETY: FIFREEZE takes a number.
    let frozen = unsafe { libc::ioctl(std::os::fd::AsRawFd::as_raw_fd(&open), 0xC004_5877, 0) };
    assert_eq!(frozen, 0);
    drop(open);
    rig.restart();
    std::fs::write(at.join("file"), "written").unwrap();
    assert_eq!(std::fs::read_dir(rig.root().join("frozen")).unwrap().count(), 0);
    rig.unmount("v", "pod").await;
}

#[tokio::test]
async fn a_group_is_made_and_deleted_as_a_whole() {
    let rig = Rig::new();
    for name in ["a", "b"] {
        rig.create(of_size(name, 16 * MIB)).await.unwrap();
    }
    let request = CreateVolumeGroupSnapshotRequest {
        name: "g".into(),
        source_volume_ids: vec!["b".into(), "a".into()],
        ..Default::default()
    };
    let made = rig.client.create_volume_group_snapshot(&request).await.unwrap();
    let group = made.group_snapshot.clone().unwrap();
    let again = rig.client.create_volume_group_snapshot(&request).await.unwrap();
    assert_eq!(again, made);
    let ids: Vec<String> = group.snapshots.iter().map(|s| s.snapshot_id.clone()).collect();
    assert_eq!(ids.len(), 2);
    let one = DeleteSnapshotRequest { snapshot_id: ids[0].clone(), secrets: vec![] };
    let deleted = rig.client.delete_snapshot(&one).await;
    assert_refused(deleted, "InvalidArgument", "part of group snapshot \"g\"");
    let delete = |snapshot_ids: Vec<String>| DeleteVolumeGroupSnapshotRequest {
        group_snapshot_id: "g".into(),
        snapshot_ids,
        secrets: vec![],
    };
    let wrong = rig.client.delete_volume_group_snapshot(&delete(vec![ids[0].clone()])).await;
    assert_refused(wrong, "InvalidArgument", "other snapshots than those given");
    rig.client.delete_volume_group_snapshot(&delete(ids)).await.unwrap();
    let left = rig.client.list_snapshots(&ListSnapshotsRequest::default()).await.unwrap();
    assert_eq!(left.entries, []);
}
