//! Volumes from their making to their end.

use std::io::{Read as _, Write as _};

use csi::v1::*;

use crate::rig::{MIB, Rig, assert_refused, block, map, mounted, of_size};

#[tokio::test]
async fn data_stays_over_unstaging_and_a_restart_of_the_driver() {
    let mut rig = Rig::new();
    let volume = rig.create(of_size("pvc-1", 64 * MIB)).await.unwrap();
    assert_eq!((volume.volume_id.as_str(), volume.capacity_bytes), ("pvc-1", 64 << 20));
    let here = map(&[("topology.local.csi.trireme.dev/node", "n1")]);
    assert_eq!(volume.accessible_topology, [Topology { segments: here }]);
    let at = rig.mount("pvc-1", "pod-a").await;
    assert_eq!(std::fs::read_dir(&at).unwrap().count(), 0, "not even lost+found");
    std::fs::write(at.join("file"), "data").unwrap();
    rig.restart();
    // Everything again, as a kubelet that has lost its memory asks.
    let at = rig.mount("pvc-1", "pod-a").await;
    assert_eq!(std::fs::read_to_string(at.join("file")).unwrap(), "data");
    rig.unmount("pvc-1", "pod-a").await;
    rig.unmount("pvc-1", "pod-a").await;
    assert!(!at.exists(), "the target is removed");
    let at = rig.mount("pvc-1", "pod-b").await;
    assert_eq!(std::fs::read_to_string(at.join("file")).unwrap(), "data");
    rig.unmount("pvc-1", "pod-b").await;
    rig.delete("pvc-1").await.unwrap();
    rig.delete("pvc-1").await.unwrap();
    assert!(!rig.root().join("volumes/pvc-1").exists());
}

#[tokio::test]
async fn a_volume_takes_no_more_than_its_size() {
    let rig = Rig::new();
    rig.create(of_size("v", 32 * MIB)).await.unwrap();
    let at = rig.mount("v", "pod").await;
    let mut file = std::fs::File::create(at.join("file")).unwrap();
    let chunk = vec![1; MIB as usize];
    let error = (0..33).find_map(|_| file.write_all(&chunk).and_then(|()| file.sync_data()).err());
    assert_eq!(error.unwrap().kind(), std::io::ErrorKind::StorageFull);
    drop(file);
    // What is deleted goes back to the node's disk.
    std::fs::remove_file(at.join("file")).unwrap();
    rig.unmount("v", "pod").await;
}

#[tokio::test]
async fn expansion_reaches_the_file_system_at_once_or_with_the_next_staging() {
    let rig = Rig::new();
    rig.create(of_size("v", 64 * MIB)).await.unwrap();
    let at = rig.mount("v", "pod").await;
    std::fs::write(at.join("file"), "data").unwrap();
    let before = rig.total("v", "pod").await;
    assert_eq!(rig.expand("v", 300 * MIB).await.unwrap(), 300 << 20);
    assert_eq!(rig.expand("v", 300 * MIB).await.unwrap(), 300 << 20, "again");
    assert_eq!(rig.expand("v", 64 * MIB).await.unwrap(), 300 << 20, "never smaller");
    match may_expand_mounted() {
        true => assert_eq!(rig.node_expand("v", "pod").await.unwrap(), 300 << 20),
        false => {
            let done = rig.node_expand("v", "pod").await;
            assert_refused(done, "FailedPrecondition", "lacks CAP_SYS_RESOURCE");
            assert_eq!(rig.total("v", "pod").await, before);
            rig.unmount("v", "pod").await;
            rig.mount("v", "pod").await;
            assert_eq!(rig.node_expand("v", "pod").await.unwrap(), 300 << 20, "it is done");
        }
    }
    assert!(rig.total("v", "pod").await > before + (200 << 20));
    assert_eq!(std::fs::read_to_string(at.join("file")).unwrap(), "data");
    rig.unmount("v", "pod").await;
}

fn may_expand_mounted() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    u64::from_str_radix(effective.trim(), 16).unwrap() & (1 << 24) != 0
}

#[tokio::test]
async fn a_block_volume_is_a_device_that_grows_and_is_found_again() {
    let mut rig = Rig::new();
    let request =
        CreateVolumeRequest { volume_capabilities: vec![block()], ..of_size("b", 32 * MIB) };
    rig.create(request).await.unwrap();
    rig.stage("b", block()).await.unwrap();
    rig.publish("b", "device", block()).await.unwrap();
    let open =
        || std::fs::OpenOptions::new().read(true).write(true).open(rig.path("device")).unwrap();
    let mut device = open();
    device.write_all(b"raw data").unwrap();
    device.sync_all().unwrap();
    drop(device);
    rig.expand("b", 48 * MIB).await.unwrap();
    assert_eq!(rig.node_expand("b", "device").await.unwrap(), 48 << 20);
    let end = std::io::Seek::seek(&mut open(), std::io::SeekFrom::End(0)).unwrap();
    assert_eq!(end, 48 << 20, "while it is in use");
    assert_eq!(rig.total("b", "device").await, 48 << 20);
    let devices = rig.devices();
    rig.restart();
    assert_eq!(rig.devices(), devices, "in use: it stays");
    rig.publish("b", "device", block()).await.unwrap();
    let mut read = [0; 8];
    std::fs::File::open(rig.path("device")).unwrap().read_exact(&mut read).unwrap();
    assert_eq!(&read, b"raw data");
    rig.unpublish("b", "device").await.unwrap();
    // As a driver leaves it that is killed between the two.
    assert_eq!(rig.devices().len(), 1);
    rig.restart();
    assert_eq!(rig.devices(), Vec::<std::path::PathBuf>::new(), "nobody used it");
    rig.unstage("b").await.unwrap();
    rig.delete("b").await.unwrap();
}

#[tokio::test]
async fn a_thick_volume_has_its_blocks_and_thin_ones_become_thick() {
    use std::os::unix::fs::MetadataExt as _;
    let rig = Rig::new();
    let blocks = |id: &str| {
        std::fs::metadata(rig.root().join("volumes").join(id).join("disk.img")).unwrap().blocks()
    };
    let thick = map(&[("allocation", "thick")]);
    let request = CreateVolumeRequest { parameters: thick.clone(), ..of_size("thick", 16 * MIB) };
    rig.create(request).await.unwrap();
    assert!(blocks("thick") >= 16 * MIB / 512);
    rig.create(of_size("thin", 16 * MIB)).await.unwrap();
    assert!(blocks("thin") < MIB / 512);
    let request = ControllerModifyVolumeRequest {
        volume_id: "thin".into(),
        secrets: vec![],
        mutable_parameters: thick,
    };
    rig.client.controller_modify_volume(&request).await.unwrap();
    assert!(blocks("thin") >= 16 * MIB / 512);
}

#[tokio::test]
async fn pods_of_one_node_share_a_volume_and_a_read_only_one_takes_no_writes() {
    let rig = Rig::new();
    rig.create(of_size("v", 32 * MIB)).await.unwrap();
    let one = rig.mount("v", "one").await;
    let request =
        NodePublishVolumeRequest { readonly: true, ..rig.publication("v", "two", mounted()) };
    rig.client.node_publish_volume(&request).await.unwrap();
    std::fs::write(one.join("file"), "seen").unwrap();
    let two = rig.path("two");
    assert_eq!(std::fs::read_to_string(two.join("file")).unwrap(), "seen");
    let error = std::fs::write(two.join("file"), "no").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    assert_refused(rig.publish("v", "two", mounted()).await, "AlreadyExists", "mounted otherwise");
    rig.unpublish("v", "two").await.unwrap();
    rig.unmount("v", "one").await;
}

#[tokio::test]
async fn pages_of_volumes_have_each_once() {
    let rig = Rig::new();
    for name in ["a", "b", "c"] {
        rig.create(of_size(name, 16 * MIB)).await.unwrap();
    }
    let mut seen = Vec::new();
    let mut request = ListVolumesRequest { max_entries: 2, starting_token: String::new() };
    loop {
        let page = rig.client.list_volumes(&request).await.unwrap();
        seen.extend(page.entries.into_iter().map(|entry| entry.volume.unwrap().volume_id));
        if page.next_token.is_empty() {
            break;
        }
        request.starting_token = page.next_token;
    }
    assert_eq!(seen, ["a", "b", "c"]);
}
