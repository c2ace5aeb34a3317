//! Waits for a volume to be attached to the node. The attach-detach controller asks for it when a pod is on
//! the node; it never detaches what the node's status names as in use.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::CSIPersistentVolumeSource;
use k8s_openapi::api::storage::v1::VolumeAttachment;
use tokio::time::Instant;

use super::super::plugin::Failed;
use super::names;
use crate::kubelet::Shared;

/// How long one try waits. It is tried again, and told in between.
const WAIT: Duration = Duration::from_secs(10);
const PERIOD: Duration = Duration::from_millis(250);

/// The driver's own words on the attachment (`publish_context`).
pub(super) async fn wait(
    shared: &Arc<Shared>,
    csi: &CSIPersistentVolumeSource,
    unique: &str,
) -> Result<BTreeMap<String, String>, Failed> {
    if shared.volumes.use_begins(unique) {
        shared.status_due.notify_one();
    }
    let until = Instant::now() + WAIT;
    while let Err(failed) = in_status(shared, unique) {
        if Instant::now() >= until {
            return Err(failed);
        }
        tokio::time::sleep(PERIOD).await;
    }
    let name = names::attachment(&csi.volume_handle, &csi.driver, &shared.config.node_name);
    loop {
        let why = match attached(shared, &csi.volume_handle, &name).await {
            Ok(context) => return Ok(context),
            Err(why) => why,
        };
        if Instant::now() >= until {
            return Err(Failed::new("MountVolume.WaitForAttach failed", why));
        }
        tokio::time::sleep(PERIOD).await;
    }
}

fn in_status(shared: &Shared, unique: &str) -> Result<(), Failed> {
    let node = shared.node.get("", &shared.config.node_name);
    let status = node.as_ref().and_then(|n| n.status.as_ref());
    if !status.is_some_and(|s| s.volumes_in_use.iter().flatten().any(|v| v == unique)) {
        let step =
            "Volume has not been added to the list of VolumesInUse in the node's volume status";
        return Err(Failed::new(step, ""));
    }
    if !status.is_some_and(|s| s.volumes_attached.iter().flatten().any(|v| v.name == unique)) {
        return Err(Failed::new("Volume not attached according to node status", ""));
    }
    Ok(())
}

async fn attached(
    shared: &Shared,
    handle: &str,
    name: &str,
) -> Result<BTreeMap<String, String>, String> {
    let found = shared.client.get::<VolumeAttachment>("", name).await;
    let found = found.map_err(|error| {
        format!("volume {handle} has GET error for volume attachment {name}: {error}")
    })?;
    judge(&found, handle, name)
}

fn judge(
    attachment: &VolumeAttachment,
    handle: &str,
    name: &str,
) -> Result<BTreeMap<String, String>, String> {
    if attachment.metadata.deletion_timestamp.is_some() {
        return Err("volume attachment is being deleted".into());
    }
    let status = attachment.status.clone().unwrap_or_default();
    if status.attached {
        return Ok(status.attachment_metadata.unwrap_or_default());
    }
    match status.attach_error.and_then(|e| e.message) {
        Some(message) => Err(message),
        None => Err(format!("volume {handle} is not attached for volume attachment {name}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_attachment_that_failed_or_goes_is_told() {
        let judged = |metadata, status| {
            let source = json!({"attacher": "d", "nodeName": "n", "source": {}});
            let object = json!({"metadata": metadata, "spec": source, "status": status});
            judge(&serde_json::from_value(object).unwrap(), "h", "csi-1")
        };
        let attached = json!({"attached": true, "attachmentMetadata": {"dev": "/dev/x"}});
        assert_eq!(judged(json!({}), attached.clone()).unwrap()["dev"], "/dev/x");
        let going = json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
        assert_eq!(judged(going, attached).unwrap_err(), "volume attachment is being deleted");
        let failed = json!({"attached": false, "attachError": {"message": "no room"}});
        assert_eq!(judged(json!({}), failed).unwrap_err(), "no room");
        assert_eq!(
            judged(json!({}), json!({"attached": false})).unwrap_err(),
            "volume h is not attached for volume attachment csi-1"
        );
    }
}
