//! The node's lease: renewed every quarter of its length, it says that the node is alive.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};

use crate::kubelet::Shared;

const NAMESPACE: &str = "kube-node-lease";
/// Wait after a failed renewal, unless the next one is due earlier.
const RETRY: Duration = Duration::from_secs(1);

pub(crate) async fn run(shared: Arc<Shared>) {
    let interval = shared.config.lease_duration / 4;
    let mut held: Option<Lease> = None;
    loop {
        match renew(&shared, held.take()).await {
            Ok(lease) => {
                held = Some(lease);
                tokio::time::sleep(interval).await;
            }
            Err(error) => {
                tracing::debug!(%error, "node lease not renewed, will retry");
                tokio::time::sleep(RETRY.min(interval)).await;
            }
        }
    }
}

async fn renew(shared: &Shared, held: Option<Lease>) -> Result<Lease, client::Error> {
    let name = &shared.config.node_name;
    let known = match held {
        Some(lease) => Some(lease),
        None => match shared.client.get::<Lease>(NAMESPACE, name).await {
            Ok(lease) => Some(lease),
            Err(e) if e.is_not_found() => None,
            Err(error) => return Err(error),
        },
    };
    let now = Some(MicroTime(Timestamp::now()));
    if let Some(mut lease) = known {
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = Some(name.clone());
        spec.renew_time = now;
        return shared.client.update(&lease).await;
    }
    let node: Node = shared.client.get("", name).await?;
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(NAMESPACE.into()),
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".into(),
                kind: "Node".into(),
                name: name.clone(),
                uid: node.metadata.uid.unwrap_or_default(),
                ..OwnerReference::default()
            }]),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(name.clone()),
            lease_duration_seconds: i32::try_from(shared.config.lease_duration.as_secs()).ok(),
            renew_time: now,
            ..LeaseSpec::default()
        }),
    };
    shared.client.create(NAMESPACE, &lease).await
}
