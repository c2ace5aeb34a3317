//! Storage on the nodes' own disks: the built-in CSI driver on every node, the controllers beside it, and the
//! objects that claims find it by: the CSIDriver and the default StorageClass `local`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use client::{Client, Informers, Resource, Tasks};
use k8s_openapi::api::storage::v1::{CSIDriver, StorageClass};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use localdisk::{Config, Driver, NAME};
use serde_json::{Value, json};

/// The word for `--disable`, as k3s has it.
pub(super) const LOCAL_STORAGE: &str = "local-storage";
const RETRY: Duration = Duration::from_secs(5);
/// Between two looks at free capacity (upstream's `--capacity-poll-interval`).
const CAPACITY_INTERVAL: Duration = Duration::from_secs(60);

/// Starts the driver of a node, and its controllers. `folder` is the node's, `kubelet` its kubelet's.
pub(super) fn start(
    folder: &Path,
    kubelet: &Path,
    node: &str,
    informers: &Informers,
    tasks: &Tasks,
) -> Result<()> {
    let root = folder.join("volumes");
    let config = Config {
        root: root.clone(),
        node: node.to_owned(),
        volumes_max: 0,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let driver = Driver::open(config).with_context(|| format!("open {}", root.display()))?;
    let socket = kubelet.join("plugins").join(NAME).join("csi.sock");
    serve(&socket, localdisk::methods(&driver), tasks)?;
    let registry = kubelet.join("plugins_registry").join(format!("{NAME}-reg.sock"));
    serve(&registry, localdisk::registration(&socket), tasks)?;
    let config = sidecars::Config {
        driver: NAME.to_owned(),
        node: node.to_owned(),
        socket,
        namespace: "kube-system".to_owned(),
        capacity_interval: CAPACITY_INTERVAL,
    };
    sidecars::start(informers, tasks, config);
    Ok(())
}

fn serve(socket: &Path, methods: grpc::server::Methods, tasks: &Tasks) -> Result<()> {
    let listener = grpc::server::bind(socket);
    let listener = listener.with_context(|| format!("listen on {}", socket.display()))?;
    tasks.spawn("local storage", grpc::server::listen(listener, Arc::new(methods)));
    Ok(())
}

fn driver() -> Value {
    json!({
        "metadata": {"name": NAME},
        "spec": {
            "attachRequired": false,
            "podInfoOnMount": false,
            "fsGroupPolicy": "File",
            "storageCapacity": true,
            "volumeLifecycleModes": ["Persistent"],
        },
    })
}

fn class() -> Value {
    json!({
        "metadata": {
            "name": "local",
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": NAME,
        "reclaimPolicy": "Delete",
        "allowVolumeExpansion": true,
        "volumeBindingMode": "WaitForFirstConsumer",
    })
}

/// Makes the objects unless they are there: whoever made or changed them knows better.
pub(super) fn make_objects(client: Client, tasks: &Tasks) {
    tasks.spawn("local storage objects", async move {
        make::<CSIDriver>(&client, driver()).await;
        make::<StorageClass>(&client, class()).await;
        for definition in sidecars::snapshot_definitions() {
            make::<CustomResourceDefinition>(&client, definition).await;
        }
    });
}

async fn make<K: Resource>(client: &Client, object: Value) {
    let object: K = match serde_json::from_value(object) {
        Ok(object) => object,
        Err(error) => return tracing::error!(%error, kind = K::KIND, "local storage"),
    };
    loop {
        match client.create("", &object).await {
            Ok(_) => return,
            Err(error) if error.is_already_exists() => return,
            Err(error) => tracing::warn!(%error, kind = K::KIND, "not made, will try again"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_class_is_the_default_and_waits_for_a_node() {
        let class: StorageClass = serde_json::from_value(class()).unwrap();
        assert_eq!(class.volume_binding_mode.as_deref(), Some("WaitForFirstConsumer"));
        assert_eq!(class.allow_volume_expansion, Some(true));
        let annotations = class.metadata.annotations.unwrap();
        assert_eq!(annotations["storageclass.kubernetes.io/is-default-class"], "true");
        let driver: CSIDriver = serde_json::from_value(driver()).unwrap();
        assert_eq!(driver.spec.attach_required, Some(false));
    }
}
