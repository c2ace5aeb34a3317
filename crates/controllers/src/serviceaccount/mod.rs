//! ServiceAccount: every namespace that is not ending has one called `default`.
//!
//! Watches Namespaces and ServiceAccounts.

use client::{Action, Client, Error, Informer, Queue, run_workers};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::Context;
use crate::meta::{name, namespace};
use crate::namespace::active;

const DEFAULT: &str = "default";
/// Namespaces reconciled at once: several may be made in one go, each wants one write.
const WORKERS: usize = 4;

pub(crate) fn start(context: &Context) {
    let this = Accounts {
        client: context.client.clone(),
        namespaces: context.informers.of(),
        accounts: context.informers.of(),
        queue: Queue::new(),
    };
    let queue = this.queue.clone();
    this.namespaces.on_change(move |change| queue.add(name(&change.object().metadata).to_owned()));
    let queue = this.queue.clone();
    this.accounts.on_change(move |change| {
        let meta = &change.object().metadata;
        if name(meta) == DEFAULT {
            queue.add(namespace(meta).to_owned());
        }
    });
    context.tasks.required("service account controller", this.run());
}

#[derive(Clone)]
struct Accounts {
    client: Client,
    namespaces: Informer<Namespace>,
    accounts: Informer<ServiceAccount>,
    queue: Queue<String>,
}

impl Accounts {
    async fn run(self) {
        self.namespaces.synced().await;
        self.accounts.synced().await;
        let queue = self.queue.clone();
        let work = move |namespace: String| {
            let this = self.clone();
            async move { this.sync(&namespace).await }
        };
        run_workers("serviceaccount", queue, WORKERS, work).await;
    }

    async fn sync(&self, namespace: &str) -> Result<Action, Error> {
        let lives = self.namespaces.get("", namespace).is_some_and(|n| active(&n));
        if !lives || self.accounts.get(namespace, DEFAULT).is_some() {
            return Ok(Action::Done);
        }
        let account = ServiceAccount {
            metadata: ObjectMeta {
                name: Some(DEFAULT.into()),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            ..ServiceAccount::default()
        };
        match self.client.create(namespace, &account).await {
            Err(error) if error.is_already_exists() => Ok(Action::Done),
            other => other.map(|_| Action::Done),
        }
    }
}
