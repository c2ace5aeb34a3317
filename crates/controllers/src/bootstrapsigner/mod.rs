//! Bootstrap signer: signs the ConfigMap `kube-public/cluster-info` with every bootstrap token that may
//! sign, so that a node that knows a token finds the cluster's CA without trusting the way to it
//! (`pkg/controller/bootstrap/bootstrapsigner.go`).
//!
//! Watches that ConfigMap and bootstrap tokens. Not started by `*`, as in upstream.

mod plan;
#[cfg(test)]
mod tests;

use client::{Action, Client, Error, Follow, Informer, Queue};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};

use crate::Context;
use crate::harness::Reconciler;
use crate::meta::{name, namespace};

const NAME: &str = "bootstrap-signer-controller";
const NAMESPACE: &str = "kube-public";
const CLUSTER_INFO: &str = "cluster-info";
const TOKENS: &str = "kube-system";

pub(crate) fn start(context: &Context) {
    let one = Follow {
        namespace: NAMESPACE.into(),
        field_selector: format!("metadata.name={CLUSTER_INFO}"),
        ..Follow::default()
    };
    let tokens = Follow {
        namespace: TOKENS.into(),
        field_selector: format!("type={}", plan::TYPE),
        ..Follow::default()
    };
    let this = Signer {
        client: context.client.clone(),
        maps: Informer::selected(&context.client, &context.tasks, one),
        tokens: Informer::selected(&context.client, &context.tasks, tokens),
    };
    // All changes have the one key: the map is signed as a whole.
    let queue = Queue::new();
    let keys = queue.clone();
    this.maps.on_change(move |change| {
        let meta = &change.object().metadata;
        if (namespace(meta), name(meta)) == (NAMESPACE, CLUSTER_INFO) {
            keys.add(());
        }
    });
    let keys = queue.clone();
    this.tokens.on_change(move |change| {
        let secret = change.object();
        if plan::is_token(secret) && namespace(&secret.metadata) == TOKENS {
            keys.add(());
        }
    });
    crate::harness::start(context, NAME, 1, queue, this);
}

#[derive(Clone)]
struct Signer {
    client: Client,
    maps: Informer<ConfigMap>,
    tokens: Informer<Secret>,
}

impl Reconciler for Signer {
    type Key = ();

    async fn synced(&self) {
        self.maps.synced().await;
        self.tokens.synced().await;
    }

    async fn reconcile(&self, (): ()) -> Result<Action, Error> {
        let Some(map) = self.maps.get(NAMESPACE, CLUSTER_INFO) else { return Ok(Action::Done) };
        let tokens = self.tokens.list_namespace(TOKENS);
        let signed = plan::sign(&map, &tokens, Timestamp::now());
        if let Some(data) = signed.data {
            let updated = ConfigMap { data: Some(data), ..(*map).clone() };
            match self.client.update(&updated).await {
                // Gone, or changed by others: that comes as a change.
                Err(error) if error.is_not_found() || error.is_conflict() => {}
                other => drop(other?),
            }
        }
        // The signature of a token goes when the token expires, whether or not somebody deletes it.
        Ok(signed.next_expiry.map_or(Action::Done, Action::After))
    }
}
