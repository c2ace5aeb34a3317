//! Claims: protected while a pod on a node uses them.
//!
//! Before a claim is let go the server itself is asked for the pods, since our view may lack one.
//! So claims are settled by namespace: one list of pods serves all that are waiting there.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use client::{
    Action, Change, Client, Error, Index, IndexKey, Informer, ListParams, Queue, run_workers,
};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};

use super::{WORKERS, plan, settle};
use crate::Context;
use crate::meta::{name, namespace};

const FINALIZER: &str = "kubernetes.io/pvc-protection";

/// Pods by the claims they name, with their namespace.
struct ByClaim;

impl IndexKey<Pod> for ByClaim {
    fn values(pod: &Pod) -> Vec<String> {
        let space = namespace(&pod.metadata);
        plan::claims_of(pod).iter().map(|claim| format!("{space}/{claim}")).collect()
    }
}

pub(crate) fn start(context: &Context) {
    let pods = context.informers.of::<Pod>();
    let this = Claims {
        client: context.client.clone(),
        claims: context.informers.of(),
        by_claim: pods.index(),
        pods,
        waiting: Arc::default(),
        queue: Queue::new(),
    };
    this.watch();
    context.tasks.required("claim protection", this.run());
}

#[derive(Clone)]
struct Claims {
    client: Client,
    claims: Informer<PersistentVolumeClaim>,
    pods: Informer<Pod>,
    by_claim: Index<Pod, ByClaim>,
    /// By namespace: the claims to look at.
    waiting: Arc<Mutex<HashMap<String, BTreeSet<String>>>>,
    /// Namespaces.
    queue: Queue<String>,
}

impl Claims {
    fn waiting(&self) -> MutexGuard<'_, HashMap<String, BTreeSet<String>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look_at(&self, namespace: &str, claim: &str) {
        self.waiting().entry(namespace.to_owned()).or_default().insert(claim.to_owned());
        self.queue.add(namespace.to_owned());
    }

    fn watch(&self) {
        let this = self.clone();
        self.claims.on_change(move |change| {
            let meta = &change.object().metadata;
            if plan::open(meta, FINALIZER) {
                this.look_at(namespace(meta), name(meta));
            }
        });
        let this = self.clone();
        self.pods.on_change(move |change| {
            let pod = change.object();
            if matches!(change, Change::Deleted(_)) || plan::lets_go(pod) {
                this.pod_let_go(pod);
            }
        });
    }

    fn pod_let_go(&self, pod: &Pod) {
        let space = namespace(&pod.metadata);
        for claim in plan::claims_of(pod) {
            let found = self.claims.get(space, &claim);
            if found.is_some_and(|c| plan::ending(&c.metadata, FINALIZER)) {
                self.look_at(space, &claim);
            }
        }
    }

    async fn run(self) {
        self.claims.synced().await;
        self.pods.synced().await;
        let queue = self.queue.clone();
        let work = move |namespace: String| {
            let this = self.clone();
            async move { this.sync(&namespace).await }
        };
        run_workers("claim protection", queue, WORKERS, work).await;
    }

    async fn sync(&self, namespace: &str) -> Result<Action, Error> {
        let names = self.waiting().remove(namespace).unwrap_or_default();
        // Read before the pods are listed: who comes to use a claim after that finds it ending.
        let claims: Vec<_> = names.iter().filter_map(|n| self.claims.get(namespace, n)).collect();
        let mut failed = None;
        let mut live = None;
        for claim in claims {
            if let Err(error) = self.sync_claim(&claim, &mut live).await {
                let mut waiting = self.waiting();
                let again = waiting.entry(namespace.to_owned()).or_default();
                again.insert(name(&claim.metadata).to_owned());
                failed = Some(error);
            }
        }
        failed.map_or(Ok(Action::Done), Err)
    }

    async fn sync_claim(
        &self,
        claim: &PersistentVolumeClaim,
        live: &mut Option<Vec<Pod>>,
    ) -> Result<Action, Error> {
        let used = plan::ending(&claim.metadata, FINALIZER) && self.is_used(claim, live).await?;
        settle(&self.client, claim, FINALIZER, used).await
    }

    async fn is_used(
        &self,
        claim: &PersistentVolumeClaim,
        live: &mut Option<Vec<Pod>>,
    ) -> Result<bool, Error> {
        let space = namespace(&claim.metadata);
        let key = format!("{space}/{}", name(&claim.metadata));
        if self.by_claim.get(&key).iter().any(|pod| plan::uses(pod, claim)) {
            return Ok(true);
        }
        if live.is_none() {
            let (pods, _) = self.client.list(space, &ListParams::default()).await?;
            *live = Some(pods);
        }
        Ok(live.iter().flatten().any(|pod| plan::uses(pod, claim)))
    }
}
