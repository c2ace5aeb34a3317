//! Cluster role aggregation: roles whose rules are those of other roles, found by label.
//!
//! Watches ClusterRoles.

mod plan;
#[cfg(test)]
mod tests;

use client::{Action, Client, Error, Informer, Patch, Queue};
use k8s_openapi::api::rbac::v1::ClusterRole;
use serde_json::json;

use crate::Context;
use crate::harness::Reconciler;
use crate::meta::name;

/// Roles written at once (upstream's number of workers).
const WORKERS: usize = 5;
/// The field manager of the rules.
const MANAGER: &str = "clusterrole-aggregation-controller";

pub(crate) fn start(context: &Context) {
    let this = Aggregation { client: context.client.clone(), roles: context.informers.of() };
    let queue = Queue::new();
    let (roles, keys) = (this.roles.clone(), queue.clone());
    this.roles.on_change(move |change| {
        for role in roles.list().iter().filter(|r| plan::is_concerned(r, change)) {
            keys.add(name(&role.metadata).to_owned());
        }
    });
    crate::harness::start(context, "clusterrole-aggregation-controller", WORKERS, queue, this);
}

#[derive(Clone)]
struct Aggregation {
    client: Client,
    roles: Informer<ClusterRole>,
}

impl Reconciler for Aggregation {
    type Key = String;

    async fn synced(&self) {
        self.roles.synced().await;
    }

    async fn reconcile(&self, own: String) -> Result<Action, Error> {
        let Some(role) = self.roles.get("", &own) else { return Ok(Action::Done) };
        let Some(rules) = plan::rules(&role, &self.roles.list()) else { return Ok(Action::Done) };
        let object = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": {"name": own}, "rules": rules});
        let apply = Patch::Apply { manager: MANAGER.into(), force: true, object };
        self.client.patch::<ClusterRole>("", &own, &apply).await.map(|_| Action::Done)
    }
}
