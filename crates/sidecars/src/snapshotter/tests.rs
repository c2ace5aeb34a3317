use std::sync::Arc;

use serde_json::json;

use super::plan::{class, content_status, snapshot_status};
use super::types::{VolumeSnapshot, VolumeSnapshotClass, VolumeSnapshotContent};

fn snapshot(class: Option<&str>) -> VolumeSnapshot {
    let spec =
        json!({"source": {"persistentVolumeClaimName": "c"}, "volumeSnapshotClassName": class});
    serde_json::from_value(json!({"metadata": {"name": "s"}, "spec": spec})).unwrap()
}

fn a_class(own: &str, driver: &str, default: bool) -> Arc<VolumeSnapshotClass> {
    let annotations =
        json!({"snapshot.storage.kubernetes.io/is-default-class": default.to_string()});
    let class = json!({"metadata": {"name": own, "annotations": annotations}, "driver": driver,
        "deletionPolicy": "Delete"});
    Arc::new(serde_json::from_value(class).unwrap())
}

#[test]
fn a_snapshot_has_the_class_that_it_names_or_the_drivers_default() {
    let all = [a_class("a", "d", false), a_class("b", "d", true), a_class("x", "other", true)];
    let of = |wanted: Option<&str>| {
        class(&snapshot(wanted), &all, "d").map(|class| class.metadata.name.clone().unwrap())
    };
    assert_eq!(of(Some("a")).unwrap(), "a");
    assert_eq!(of(None).unwrap(), "b");
    assert!(of(Some("x")).unwrap_err().contains("of driver other"));
    assert!(of(Some("none")).unwrap_err().contains("not found"));
    let two = [a_class("a", "d", true), a_class("b", "d", true)];
    assert!(class(&snapshot(None), &two, "d").unwrap_err().contains("2 default snapshot classes"));
    assert!(class(&snapshot(None), &[], "d").unwrap_err().contains("cannot find default"));
}

#[test]
fn statuses_follow_the_drivers_snapshot() {
    let made = csi::v1::Snapshot {
        size_bytes: 1 << 30,
        snapshot_id: "h".into(),
        creation_time: Some(csi::v1::Timestamp { seconds: 1_700_000_000, nanos: 5 }),
        ready_to_use: true,
        ..Default::default()
    };
    let status = content_status(&made);
    assert_eq!(status["creationTime"], 1_700_000_000_000_000_005_i64);
    let content = json!({"metadata": {"name": "snapcontent-u"}, "status": status,
        "spec": {"driver": "d", "deletionPolicy": "Delete", "source": {"volumeHandle": "v"},
            "volumeSnapshotRef": {"name": "s", "namespace": "n"}}});
    let content: VolumeSnapshotContent = serde_json::from_value(content).unwrap();
    let expected = json!({"boundVolumeSnapshotContentName": "snapcontent-u", "readyToUse": true,
        "creationTime": "2023-11-14T22:13:20Z", "restoreSize": "1Gi", "error": null});
    assert_eq!(snapshot_status(&content), expected);
}
