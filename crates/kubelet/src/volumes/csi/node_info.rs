//! The drivers of the node as the API knows them: the CSINode object, the Node's annotation and its labels of
//! topology.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use client::{DeleteParams, Error, Patch};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::storage::v1::{CSINode, CSINodeDriver, CSINodeSpec, VolumeNodeResources};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde_json::json;

use crate::kubelet::Shared;

const ANNOTATION: &str = "csi.volume.kubernetes.io/nodeid";
const MIGRATED: &str = "storage.alpha.kubernetes.io/migrated-plugins";
/// In-tree plugins whose volumes belong to a CSI driver, in the order of the names.
const MIGRATED_PLUGINS: &str = "kubernetes.io/aws-ebs,kubernetes.io/azure-disk,kubernetes.io/azure-file,kubernetes.io/cinder,kubernetes.io/gce-pd,kubernetes.io/portworx-volume,kubernetes.io/vsphere-volume";
/// Upstream's pace.
const TRIES: u32 = 4;
const FIRST_WAIT: Duration = Duration::from_millis(500);
const FACTOR: f64 = 6.0;
/// Wait after the API has refused.
const RETRY: Duration = Duration::from_secs(5);
/// How often it is looked whether the Node is there.
const PERIOD: Duration = Duration::from_millis(500);

/// What a driver says of itself on this node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Info {
    pub(super) driver: String,
    pub(super) node_id: String,
    /// Most volumes on the node; 0: no limit.
    pub(super) max_volumes: i64,
    pub(super) topology: BTreeMap<String, String>,
}

/// Makes the CSINode once the Node is there.
pub(crate) async fn run(shared: Arc<Shared>) {
    loop {
        match own_node(&shared) {
            None => {}
            Some(node) => match ensured(&shared, &node).await {
                Ok(_) => return std::future::pending().await,
                Err(error) => {
                    tracing::warn!(error, "CSINode not published, will retry");
                    tokio::time::sleep(RETRY).await;
                }
            },
        }
        tokio::time::sleep(PERIOD).await;
    }
}

fn own_node(shared: &Shared) -> Option<Arc<Node>> {
    shared.node.get("", &shared.config.node_name)
}

/// Tells the API of a driver, with some patience.
pub(super) async fn install(shared: &Shared, info: &Info) -> Result<(), String> {
    if info.node_id.is_empty() {
        return Err("error adding CSI driver node info: driverNodeID must not be empty".into());
    }
    patiently(|| update_node(shared, info)).await.map_err(|e| {
        format!("error updating Node object with CSI driver node info: error updating node: timed out waiting for the condition; caused by: {e}")
    })?;
    patiently(|| update_csi_node(shared, info)).await.map_err(|e| {
        format!("error updating CSINode object with CSI driver node info: error updating CSINode: timed out waiting for the condition; caused by: {e}")
    })
}

/// Tells the API that a driver is gone.
pub(super) async fn uninstall(shared: &Shared, driver: &str) -> Result<(), String> {
    patiently(|| remove_from_csi_node(shared, driver))
        .await
        .map_err(|e| format!("error uninstalling CSI driver from CSINode object {e}"))?;
    patiently(|| remove_from_node(shared, driver))
        .await
        .map_err(|e| format!("error removing CSI driver node info from Node object {e}"))
}

async fn remove_from_csi_node(shared: &Shared, driver: &str) -> Result<(), String> {
    let mut own = match shared.client.get::<CSINode>("", &shared.config.node_name).await {
        Err(error) if error.is_not_found() => return Ok(()),
        other => other.map_err(|e| e.to_string())?,
    };
    let before = own.spec.drivers.len();
    own.spec.drivers.retain(|d| d.name != driver);
    if own.spec.drivers.len() == before {
        return Ok(());
    }
    let written = shared.client.update(&own).await;
    written.map(drop).map_err(|e: Error| e.to_string())
}

async fn remove_from_node(shared: &Shared, driver: &str) -> Result<(), String> {
    let name = &shared.config.node_name;
    let node = shared.client.get::<Node>("", name).await.map_err(|e| e.to_string())?;
    let mut ids = ids_of(&node)?;
    if ids.remove(driver).is_none() {
        return Ok(());
    }
    let text = match ids.is_empty() {
        true => serde_json::Value::Null,
        false => json!(serde_json::to_string(&ids).map_err(|e| e.to_string())?),
    };
    let change = json!({"metadata": {"annotations": {ANNOTATION: text}}});
    let written = shared.client.patch::<Node>("", name, &Patch::Merge(change)).await;
    written.map(drop).map_err(|e| e.to_string())
}

async fn patiently<F: Future<Output = Result<(), String>>>(
    work: impl Fn() -> F,
) -> Result<(), String> {
    let mut wait = FIRST_WAIT;
    for _ in 1..TRIES {
        match work().await {
            Ok(()) => return Ok(()),
            Err(error) => tracing::debug!(error, "CSI node information not written yet"),
        }
        tokio::time::sleep(wait).await;
        wait = wait.mul_f64(FACTOR);
    }
    work().await
}

async fn update_node(shared: &Shared, info: &Info) -> Result<(), String> {
    let name = &shared.config.node_name;
    let node = shared.client.get::<Node>("", name).await.map_err(|e| e.to_string())?;
    let Some((annotation, labels)) = node_change(&node, info)? else { return Ok(()) };
    let change = json!({"metadata": {"annotations": {ANNOTATION: annotation}, "labels": labels}});
    let written = shared.client.patch::<Node>("", name, &Patch::Merge(change)).await;
    written.map(drop).map_err(|e| e.to_string())
}

type NodeChange = (String, BTreeMap<String, String>);

/// What drivers call the node, by driver.
fn ids_of(node: &Node) -> Result<BTreeMap<String, String>, String> {
    let annotation = node.metadata.annotations.as_ref().and_then(|a| a.get(ANNOTATION));
    match annotation.map_or("", String::as_str) {
        "" => Ok(BTreeMap::new()),
        text => serde_json::from_str(text).map_err(|e| {
            format!("failed to parse node's {ANNOTATION:?} annotation value ({text:?}) err={e}")
        }),
    }
}

/// The annotation's new value and the labels to add; `None` when all is there.
fn node_change(node: &Node, info: &Info) -> Result<Option<NodeChange>, String> {
    let mut ids = ids_of(node)?;
    let old = ids.insert(info.driver.clone(), info.node_id.clone());
    let labels = node.metadata.labels.clone().unwrap_or_default();
    for (key, value) in &info.topology {
        if let Some(other) = labels.get(key).filter(|other| *other != value) {
            return Err(format!(
                "detected topology value collision: driver reported {key:?}:{value:?} but existing label is {key:?}:{other:?}"
            ));
        }
    }
    let all_there = info.topology.keys().all(|key| labels.contains_key(key));
    if old.as_ref() == Some(&info.node_id) && all_there {
        return Ok(None);
    }
    let text = serde_json::to_string(&ids).map_err(|e| e.to_string())?;
    Ok(Some((text, info.topology.clone())))
}

fn empty(name: &str, owner: &str) -> CSINode {
    let reference = OwnerReference {
        api_version: "v1".into(),
        kind: "Node".into(),
        name: name.to_owned(),
        uid: owner.to_owned(),
        ..OwnerReference::default()
    };
    CSINode {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            annotations: Some([(MIGRATED.to_owned(), MIGRATED_PLUGINS.to_owned())].into()),
            owner_references: Some(vec![reference]),
            ..ObjectMeta::default()
        },
        spec: CSINodeSpec { drivers: Vec::new() },
    }
}

/// The node's own CSINode. One of a node of former days goes first.
async fn ensured(shared: &Shared, node: &Node) -> Result<CSINode, String> {
    let name = &shared.config.node_name;
    let uid = node.metadata.uid.as_deref().unwrap_or("");
    let found = match shared.client.get::<CSINode>("", name).await {
        Ok(found) => found,
        Err(error) if error.is_not_found() => {
            let made = shared.client.create("", &empty(name, uid)).await;
            return made.map_err(|e: Error| e.to_string());
        }
        Err(error) => return Err(error.to_string()),
    };
    let mut owners = found.metadata.owner_references.iter().flatten();
    if owners.any(|o| o.kind == "Node" && o.name == *name && o.uid == uid) {
        return Ok(found);
    }
    let deleted = shared.client.delete::<CSINode>("", name, &DeleteParams::default()).await;
    deleted.map_err(|e| format!("error deleting existing CSINode {name:?}: {e}"))?;
    Err(format!("CSINode {name:?} was owned by different node, deleted it"))
}

async fn update_csi_node(shared: &Shared, info: &Info) -> Result<(), String> {
    let node = own_node(shared).ok_or("the Node object is not there yet")?;
    let mut own = ensured(shared, &node).await?;
    if !put(&mut own.spec.drivers, info) {
        return Ok(());
    }
    let written = shared.client.update(&own).await;
    written.map(drop).map_err(|e: Error| e.to_string())
}

/// Puts the driver into the list; whether that changed it.
fn put(drivers: &mut Vec<CSINodeDriver>, info: &Info) -> bool {
    let count = match info.max_volumes {
        1.. => Some(i32::try_from(info.max_volumes).unwrap_or(i32::MAX)),
        0 => None,
        _ => {
            tracing::error!(driver = info.driver, limit = info.max_volumes, "invalid attach limit");
            None
        }
    };
    let keys: BTreeSet<&String> = info.topology.keys().collect();
    let same = |d: &CSINodeDriver| {
        d.name == info.driver
            && d.node_id == info.node_id
            && d.topology_keys.iter().flatten().collect::<BTreeSet<_>>() == keys
            && d.allocatable.as_ref().and_then(|a| a.count) == count
    };
    if drivers.iter().any(same) {
        return false;
    }
    drivers.retain(|d| d.name != info.driver);
    drivers.push(CSINodeDriver {
        name: info.driver.clone(),
        node_id: info.node_id.clone(),
        topology_keys: Some(keys.into_iter().cloned().collect()),
        allocatable: count.map(|count| VolumeNodeResources { count: Some(count) }),
    });
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info() -> Info {
        Info {
            driver: "d".into(),
            node_id: "n-1".into(),
            max_volumes: 3,
            topology: [("topology.d/node".to_owned(), "n1".to_owned())].into(),
        }
    }

    #[test]
    fn a_driver_is_written_once_and_again_when_it_says_something_else() {
        let mut drivers = Vec::new();
        assert!(put(&mut drivers, &info()));
        assert!(!put(&mut drivers, &info()));
        assert!(put(&mut drivers, &Info { max_volumes: 4, ..info() }));
        assert_eq!(drivers.len(), 1);
        assert_eq!(drivers[0].allocatable.as_ref().unwrap().count, Some(4));
        assert!(put(&mut drivers, &Info { max_volumes: i64::MAX, ..info() }));
        assert_eq!(drivers[0].allocatable.as_ref().unwrap().count, Some(i32::MAX));
        assert!(put(&mut drivers, &Info { max_volumes: -1, ..info() }));
        assert!(drivers[0].allocatable.is_none());
    }

    #[test]
    fn another_topology_than_the_nodes_is_refused() {
        let node = |metadata: serde_json::Value| -> Node {
            serde_json::from_value(json!({"metadata": metadata})).unwrap()
        };
        let (text, labels) = node_change(&node(json!({})), &info()).unwrap().unwrap();
        assert_eq!((text.as_str(), labels.len()), ("{\"d\":\"n-1\"}", 1));
        let other = node(json!({"labels": {"topology.d/node": "n2"}}));
        assert_eq!(
            node_change(&other, &info()).unwrap_err(),
            "detected topology value collision: driver reported \"topology.d/node\":\"n1\" but existing label is \"topology.d/node\":\"n2\""
        );
        let torn = node(json!({"annotations": {ANNOTATION: "{"}}));
        assert!(node_change(&torn, &info()).unwrap_err().starts_with("failed to parse node's"));
        let done = node(json!({"annotations": {ANNOTATION: text}, "labels": labels}));
        assert_eq!(node_change(&done, &info()), Ok(None));
    }
}
