//! Free capacity of the node for each storage class of the driver, as `CSIStorageCapacity` objects: the
//! scheduler leaves out nodes that have no room.

use std::collections::BTreeSet;

use client::{DeleteParams, Error, Patch};
use csi::v1::GetCapacityRequest;
use k8s_openapi::api::storage::v1::{CSIStorageCapacity, StorageClass};
use serde_json::json;

use crate::claims::amount;
use crate::context::Context;
use crate::metadata::name;

const DRIVER: &str = "csi.storage.k8s.io/drivername";
const MANAGER: &str = "csi.storage.k8s.io/managed-by";

pub(crate) async fn run(context: &Context) {
    let classes = context.informers.of::<StorageClass>();
    let objects = context.informers.of::<CSIStorageCapacity>();
    let volumes = context.informers.of::<k8s_openapi::api::core::v1::PersistentVolume>();
    let changed = std::sync::Arc::new(tokio::sync::Notify::new());
    let notify = changed.clone();
    classes.on_change(move |_| notify.notify_one());
    let notify = changed.clone();
    volumes.on_change(move |_| notify.notify_one());
    classes.synced().await;
    objects.synced().await;
    loop {
        if let Err(error) = publish(context, &classes.list(), &objects.list()).await {
            tracing::warn!(%error, "free capacity was not published, will try again");
        }
        let pause = tokio::time::sleep(context.config.capacity_interval);
        tokio::select! { () = pause => {}, () = changed.notified() => {} }
    }
}

fn manager(context: &Context) -> String {
    format!("external-provisioner-{}", context.config.node)
}

async fn publish(
    context: &Context,
    classes: &[std::sync::Arc<StorageClass>],
    objects: &[std::sync::Arc<CSIStorageCapacity>],
) -> Result<(), Error> {
    let ours = classes.iter().filter(|class| class.provisioner == context.config.driver);
    let mut kept = BTreeSet::new();
    for class in ours {
        let own = format!("csisc-{}-{}", name(&class.metadata), context.config.node);
        let object = object(context, class, &own).await?;
        let known = objects.iter().find(|known| known.metadata.name.as_ref() == Some(&own));
        let same = |known: &CSIStorageCapacity| {
            known.capacity == object.capacity
                && known.maximum_volume_size == object.maximum_volume_size
        };
        if !known.is_some_and(|known| same(known)) {
            let value = serde_json::to_value(&object).unwrap_or_default();
            let force = Patch::Apply { manager: manager(context), force: true, object: value };
            let space = &context.config.namespace;
            context.client.patch::<CSIStorageCapacity>(space, &own, &force).await?;
        }
        kept.insert(own);
    }
    let is_own = |object: &&std::sync::Arc<CSIStorageCapacity>| {
        let labels = object.metadata.labels.as_ref();
        labels.and_then(|labels| labels.get(MANAGER)) == Some(&manager(context))
    };
    for gone in objects.iter().filter(is_own).filter(|o| !kept.contains(name(&o.metadata))) {
        let space = gone.metadata.namespace.as_deref().unwrap_or("");
        let own = name(&gone.metadata);
        let deleted =
            context.client.delete::<CSIStorageCapacity>(space, own, &DeleteParams::default()).await;
        if let Err(error) = deleted
            && !error.is_not_found()
        {
            return Err(error);
        }
    }
    Ok(())
}

async fn object(
    context: &Context,
    class: &StorageClass,
    own: &str,
) -> Result<CSIStorageCapacity, Error> {
    let question = GetCapacityRequest {
        parameters: class.parameters.clone().unwrap_or_default(),
        accessible_topology: Some(context.topology.clone()),
        ..Default::default()
    };
    let failed = |why: String| Error::from(api::Status::failure(500, "InternalError", why));
    let free = context.csi.get_capacity(&question).await.map_err(|e| failed(e.go_text()))?;
    let mut object = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "CSIStorageCapacity",
        "metadata": {"name": own, "namespace": context.config.namespace,
            "labels": {DRIVER: context.config.driver, MANAGER: manager(context)}},
        "storageClassName": name(&class.metadata),
        "nodeTopology": {"matchLabels": context.topology.segments},
        "capacity": amount(rounded(free.available_capacity)),
    });
    if let Some(most) = free.maximum_volume_size {
        object["maximumVolumeSize"] = amount(rounded(most)).into();
    }
    serde_json::from_value(object).map_err(|error| failed(error.to_string()))
}

/// Down to 64 MiB: the object is not written for every block that a container writes.
fn rounded(bytes: i64) -> i64 {
    bytes & !((64 << 20) - 1)
}
