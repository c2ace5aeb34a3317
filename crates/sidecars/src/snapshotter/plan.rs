//! Names and objects of snapshots. Pure.

use std::sync::Arc;

use serde_json::{Value, json};

use super::types::{VolumeSnapshot, VolumeSnapshotClass, VolumeSnapshotContent};
use super::{CONTENT_FINALIZER, MANAGED_BY};
use crate::claims::amount;
use crate::metadata::{annotation, name, namespace, uid};

const DEFAULT_CLASS: &str = "snapshot.storage.kubernetes.io/is-default-class";

/// The content of a snapshot: the one that it names, or the one that is made for it.
pub(super) fn content_name(snapshot: &VolumeSnapshot) -> String {
    match &snapshot.spec.source.volume_snapshot_content_name {
        Some(given) => given.clone(),
        None => format!("snapcontent-{}", uid(&snapshot.metadata)),
    }
}

/// The class that a snapshot is made with.
pub(super) fn class(
    snapshot: &VolumeSnapshot,
    classes: &[Arc<VolumeSnapshotClass>],
    driver: &str,
) -> Result<Arc<VolumeSnapshotClass>, String> {
    if let Some(wanted) = &snapshot.spec.volume_snapshot_class_name {
        let class = classes.iter().find(|class| name(&class.metadata) == wanted);
        let class = class.ok_or_else(|| {
            format!("Failed to get snapshot class with error failed to retrieve snapshot class {wanted} from the informer: \"volumesnapshotclass.snapshot.storage.k8s.io \\\"{wanted}\\\" not found\"")
        })?;
        return match class.driver == driver {
            true => Ok(class.clone()),
            false => Err(format!(
                "the snapshot class {wanted} is of driver {}, and the volume is of driver {driver}",
                class.driver
            )),
        };
    }
    let is_default = |class: &&Arc<VolumeSnapshotClass>| {
        class.driver == driver && annotation(&class.metadata, DEFAULT_CLASS) == Some("true")
    };
    let mut defaults = classes.iter().filter(is_default);
    match (defaults.next(), defaults.count()) {
        (None, _) => {
            Err("Failed to get snapshot class with error cannot find default snapshot class".into())
        }
        (Some(class), 0) => Ok(class.clone()),
        (Some(_), more) => Err(format!(
            "Failed to get snapshot class with error {} default snapshot classes were found",
            more + 1
        )),
    }
}

/// The content of a snapshot that is still to be made.
pub(super) fn content(
    snapshot: &VolumeSnapshot,
    class: &VolumeSnapshotClass,
    (handle, volume_mode): (&str, Option<&str>),
    node: &str,
) -> Result<VolumeSnapshotContent, String> {
    let meta = &snapshot.metadata;
    let object = json!({
        "metadata": {"name": content_name(snapshot), "labels": {MANAGED_BY: node},
            "finalizers": [CONTENT_FINALIZER]},
        "spec": {
            "driver": class.driver, "deletionPolicy": class.deletion_policy,
            "source": {"volumeHandle": handle}, "sourceVolumeMode": volume_mode,
            "volumeSnapshotClassName": name(&class.metadata),
            "volumeSnapshotRef": {"name": meta.name, "namespace": meta.namespace, "uid": meta.uid},
        },
    });
    serde_json::from_value(object).map_err(|error| error.to_string())
}

/// The status of a content whose snapshot the driver has made.
pub(super) fn content_status(made: &csi::v1::Snapshot) -> Value {
    let created = made.creation_time.unwrap_or_default();
    let nanoseconds = created.seconds.saturating_mul(1_000_000_000) + i64::from(created.nanos);
    json!({"snapshotHandle": made.snapshot_id, "creationTime": nanoseconds,
        "restoreSize": made.size_bytes, "readyToUse": made.ready_to_use, "error": null})
}

/// The status of a snapshot whose content is this one.
pub(super) fn snapshot_status(content: &VolumeSnapshotContent) -> Value {
    let status = &content.status;
    let created =
        status.creation_time.and_then(|at| jiff::Timestamp::from_nanosecond(at.into()).ok());
    // Without fractions, as metadata's times are.
    let created = created.map(|at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    json!({"boundVolumeSnapshotContentName": name(&content.metadata), "creationTime": created,
        "readyToUse": status.ready_to_use.unwrap_or(false),
        "restoreSize": status.restore_size.map(amount), "error": null})
}

/// Whether a content names this snapshot; the reason against it.
pub(super) fn is_for(
    content: &VolumeSnapshotContent,
    snapshot: &VolumeSnapshot,
) -> Result<(), String> {
    let (of, meta) = (&content.spec.volume_snapshot_ref, &snapshot.metadata);
    let same = of.name == name(meta)
        && of.namespace == namespace(meta)
        && (of.uid.is_empty() || of.uid == uid(meta));
    match same {
        true => Ok(()),
        false => Err(format!(
            "VolumeSnapshotContent {} is bound to a different snapshot",
            name(&content.metadata)
        )),
    }
}
