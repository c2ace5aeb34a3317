//! Mirror pods: what the API shows of the node's static pods.
//!
//! A mirror that is deleted is made again as long as its pod is there; one that was made of another
//! manifest, or whose pod is gone, is deleted.

use std::sync::Arc;
use std::time::Duration;

use client::DeleteParams;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use super::pods::{full_name, is_mirror};
use super::{HASH, MIRROR};
use crate::kubelet::Shared;
use crate::spec::{described, name_of, namespace_of, uid_of};

/// Wait before what the API refused, or did not answer, is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// What is to be done about one mirror.
#[derive(Debug, Clone, PartialEq)]
enum Step {
    Create(Arc<Pod>),
    Delete(Arc<Pod>),
}

pub(crate) async fn run(shared: Arc<Shared>) {
    shared.pods.api.synced().await;
    // The informer is the agent's own, which must be able to end.
    let watching = Arc::downgrade(&shared);
    shared.node.on_change(move |_| {
        if let Some(shared) = watching.upgrade() {
            shared.pods.mirrors.notify_one();
        }
    });
    loop {
        let done = reconcile(&shared).await;
        let news = shared.pods.mirrors.notified();
        match done {
            true => news.await,
            false => drop(tokio::time::timeout(RETRY, news).await),
        }
    }
}

/// Whether nothing is left to be tried again.
async fn reconcile(shared: &Shared) -> bool {
    let mut done = true;
    for step in plan(shared) {
        let (pod, result) = match &step {
            Step::Create(pod) => (pod, create(shared, pod).await),
            Step::Delete(mirror) => (mirror, delete(shared, mirror).await),
        };
        if let Err(error) = result {
            tracing::warn!(error, pod = described(pod), "mirror pod not written, will retry");
            done = false;
        }
    }
    done
}

fn plan(shared: &Shared) -> Vec<Step> {
    let statics = shared.pods.list_started();
    let mut steps: Vec<Step> =
        statics.into_iter().filter_map(|pod| step(&pod, shared.pods.mirror(&pod))).collect();
    if shared.pods.is_complete() {
        let mirrors = shared.pods.api.list().into_iter().filter(|pod| is_mirror(pod));
        let orphans = mirrors.filter(|mirror| !shared.pods.has_static(&full_name(mirror)));
        steps.extend(orphans.map(Step::Delete));
    }
    steps
}

fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// What one static pod's mirror needs.
fn step(pod: &Arc<Pod>, mirror: Option<Arc<Pod>>) -> Option<Step> {
    let Some(mirror) = mirror else { return Some(Step::Create(pod.clone())) };
    let same = annotation(&mirror, MIRROR) == annotation(pod, HASH);
    let stays = same && mirror.metadata.deletion_timestamp.is_none();
    // It is made anew when the API tells that it has gone.
    (!stays).then_some(Step::Delete(mirror))
}

/// What the API is asked to make: the pod, marked as a mirror and owned by the node.
fn mirror_of(pod: &Pod, node: &Node) -> Option<Pod> {
    let mut mirror = pod.clone();
    mirror.status = None;
    let meta = &mut mirror.metadata;
    let annotations = meta.annotations.get_or_insert_default();
    let hash = annotations.get(HASH).cloned()?;
    annotations.insert(MIRROR.to_owned(), hash);
    meta.uid = None;
    meta.resource_version = None;
    meta.owner_references = Some(vec![OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node.metadata.name.clone()?,
        uid: node.metadata.uid.clone().filter(|uid| !uid.is_empty())?,
        controller: Some(true),
        block_owner_deletion: None,
    }]);
    Some(mirror)
}

async fn create(shared: &Shared, pod: &Pod) -> Result<(), String> {
    let node =
        shared.node.get("", &shared.config.node_name).ok_or("the node is not registered yet")?;
    let mirror = mirror_of(pod, &node).ok_or("the node has no uid yet")?;
    match shared.client.create(namespace_of(pod), &mirror).await {
        Ok(_) => Ok(()),
        // A mirror is seen soon; else something else has its name.
        Err(error) if error.is_already_exists() => {
            let found = shared.client.get::<Pod>(namespace_of(pod), name_of(pod)).await;
            match found.is_ok_and(|found| is_mirror(&found)) {
                true => Ok(()),
                false => Err(error.to_string()),
            }
        }
        Err(error) => Err(error.to_string()),
    }
}

async fn delete(shared: &Shared, mirror: &Pod) -> Result<(), String> {
    let params = DeleteParams {
        grace_period_seconds: Some(0),
        uid: Some(uid_of(mirror).to_owned()),
        ..DeleteParams::default()
    };
    match shared.client.delete::<Pod>(namespace_of(mirror), name_of(mirror), &params).await {
        Ok(()) => Ok(()),
        Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(meta: Value) -> Arc<Pod> {
        Arc::new(
            serde_json::from_value(json!({"metadata": meta, "spec": {"containers": []}})).unwrap(),
        )
    }

    fn own() -> Arc<Pod> {
        pod(json!({"name": "a", "namespace": "default", "uid": "h", "annotations": {HASH: "h"}}))
    }

    #[test]
    fn a_mirror_is_made_kept_or_deleted() {
        let pod_ = own();
        assert_eq!(step(&pod_, None), Some(Step::Create(pod_.clone())));
        let good = pod(json!({"annotations": {MIRROR: "h"}}));
        assert_eq!(step(&pod_, Some(good)), None);
        let old = pod(json!({"annotations": {MIRROR: "before"}}));
        assert_eq!(step(&pod_, Some(old.clone())), Some(Step::Delete(old)));
        let going =
            pod(json!({"annotations": {MIRROR: "h"}, "deletionTimestamp": "2026-01-01T00:00:00Z"}));
        assert_eq!(step(&pod_, Some(going.clone())), Some(Step::Delete(going)));
    }

    #[test]
    fn a_mirror_is_the_nodes() {
        let node =
            |meta: Value| -> Node { serde_json::from_value(json!({"metadata": meta})).unwrap() };
        let mirror = mirror_of(&own(), &node(json!({"name": "n", "uid": "N"}))).unwrap();
        assert_eq!(mirror.metadata.uid, None);
        assert_eq!(annotation(&mirror, MIRROR), Some("h"));
        let owner = &mirror.metadata.owner_references.unwrap()[0];
        assert_eq!(
            (owner.kind.as_str(), owner.uid.as_str(), owner.controller),
            ("Node", "N", Some(true))
        );
        assert!(mirror_of(&own(), &node(json!({"name": "n"}))).is_none(), "without a uid none");
    }
}
