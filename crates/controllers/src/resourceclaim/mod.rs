//! Resource claims: makes them from templates for the pods that ask for them, reserves them for pods that
//! were bound past the scheduler, and takes devices back when nobody needs them any more
//! (`pkg/controller/resourceclaim`).
//!
//! Watches Pods, ResourceClaims and ResourceClaimTemplates.

mod consumers;
mod index;
mod plan;
mod release;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use client::{Action, Change, Client, Error, EventType, Index, Informer, Patch, Queue, Recorder};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceClaimTemplate};
use serde_json::json;

use self::consumers::Gone;
use self::index::{ByClaim, ByTemplate};
use self::plan::Need;
use crate::Context;
use crate::harness::{ByController, Expectations, Reconciler};
use crate::meta::{Key, controller, key, name, namespace, reference, uid};
use crate::pods;

const NAME: &str = "resourceclaim-controller";
/// Keys worked on at once (upstream's `--concurrent-resource-claim-syncs`).
const WORKERS: usize = 50;
/// The field manager of pods' `resourceClaimStatuses`.
const MANAGER: &str = "ResourceClaimController";

/// What is looked at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Work {
    Pod(Key),
    Claim(Key),
}

pub(crate) fn start(context: &Context) {
    let (all_pods, claims) = (context.informers.of::<Pod>(), context.informers.of());
    let this = Claims {
        client: context.client.clone(),
        recorder: context.recorder("resource_claim"),
        by_claim: all_pods.index(),
        by_template: all_pods.index(),
        pods: all_pods,
        owned: claims.index(),
        expectations: Expectations::new(claims.clone()),
        claims,
        templates: context.informers.of(),
        gone: Gone::default(),
    };
    let queue = Queue::new();
    let (keys, of) = (queue.clone(), this.clone());
    this.pods.on_change(move |change| {
        if let Change::Deleted(pod) = change {
            of.gone.add(uid(&pod.metadata));
        }
        plan::work(change.object(), matches!(change, Change::Deleted(_)), |work| keys.add(work));
    });
    let (keys, of) = (queue.clone(), this.clone());
    this.claims.on_change(move |change| of.claim_changed(change, &keys));
    let (keys, of) = (queue.clone(), this.clone());
    this.templates.on_change(move |change| {
        if !matches!(change, Change::Deleted(_)) {
            let pods = of.by_template.get(&index::joined(&key(&**change.object())));
            pods.iter().for_each(|pod| keys.add(Work::Pod(key(&**pod))));
        }
    });
    crate::harness::start(context, NAME, WORKERS, queue, this);
}

#[derive(Clone)]
struct Claims {
    client: Client,
    recorder: Recorder,
    pods: Informer<Pod>,
    by_claim: Index<Pod, ByClaim>,
    by_template: Index<Pod, ByTemplate>,
    claims: Informer<ResourceClaim>,
    /// By the uid of the pod that they were made for.
    owned: Index<ResourceClaim, ByController>,
    expectations: Expectations<ResourceClaim>,
    templates: Informer<ResourceClaimTemplate>,
    gone: Gone,
}

impl Reconciler for Claims {
    type Key = Work;

    async fn synced(&self) {
        self.pods.synced().await;
        self.claims.synced().await;
        self.templates.synced().await;
    }

    async fn reconcile(&self, work: Work) -> Result<Action, Error> {
        match work {
            Work::Pod(key) => self.sync_pod(key).await,
            Work::Claim(key) => self.sync_claim(key).await,
        }
    }
}

impl Claims {
    fn claim_changed(&self, change: &Change<ResourceClaim>, keys: &Queue<Work>) {
        let claim = change.object();
        if !matches!(change, Change::Deleted(_)) {
            keys.add(Work::Claim(key(&**claim)));
        }
        let users = self.by_claim.get(&index::joined(&key(&**claim)));
        users.iter().for_each(|pod| keys.add(Work::Pod(key(&**pod))));
        // A claim that was just made is named by its pod's status only later.
        if let Some(owner) = controller(&claim.metadata).filter(|owner| owner.kind == "Pod") {
            keys.add(Work::Pod((namespace(&claim.metadata).into(), owner.name.clone())));
        }
    }

    async fn sync_pod(&self, key: Key) -> Result<Action, Error> {
        let Some(pod) = self.pods.get(&key.0, &key.1) else {
            self.expectations.forget(&key);
            return Ok(Action::Done);
        };
        // A pod that ends needs no claims. What was made and does not show yet would be made twice.
        let ends = pod.metadata.deletion_timestamp.is_some() || pods::finished(&pod);
        if ends || !self.expectations.satisfied(&key) {
            return Ok(Action::Done);
        }
        let names = self.create_missing(&pod, &key).await?;
        if let Some(names) = plan::statuses(&pod, &names) {
            self.name_claims(&pod, &names).await?;
        }
        // The scheduler reserves claims of pods that it binds.
        if !pods::node(&pod).is_empty() {
            self.reserve(&pod, &names).await?;
        }
        Ok(Action::Done)
    }

    /// Makes the claims that the pod's templates ask for; the names of all its generated claims.
    async fn create_missing(
        &self,
        pod: &Pod,
        key: &Key,
    ) -> Result<BTreeMap<String, String>, Error> {
        let mut names = BTreeMap::new();
        let entries = pod.spec.iter().flat_map(|s| s.resource_claims.iter().flatten());
        for entry in entries {
            let need = plan::need(
                pod,
                entry,
                |name| self.claims.get(&key.0, name),
                || self.owned.get(uid(&pod.metadata)),
                |name| self.templates.get(&key.0, name),
            );
            match need {
                Ok(Need::Nothing) => {}
                Ok(Need::Name(name)) => drop(names.insert(entry.name.clone(), name)),
                Ok(Need::Create(claim)) => match self.client.create(&key.0, &*claim).await {
                    Ok(made) => {
                        self.expectations.expect_creation(key, &made);
                        names.insert(entry.name.clone(), name(&made.metadata).to_owned());
                    }
                    Err(error) => {
                        let why = format!("create ResourceClaim : {error}");
                        self.tell(pod, &entry.name, &why);
                        return Err(error);
                    }
                },
                Err(why) => {
                    self.tell(pod, &entry.name, &why);
                    let own = name(&pod.metadata);
                    let why =
                        format!("pod {}/{own}, PodResourceClaim {}: {why}", key.0, entry.name);
                    return Err(api::Status::failure(409, "Conflict", why).into());
                }
            }
        }
        Ok(names)
    }

    fn tell(&self, pod: &Pod, entry: &str, why: &str) {
        let message = format!("PodResourceClaim {entry}: {why}");
        let about = reference(pod);
        self.recorder.event(&about, EventType::Warning, "FailedResourceClaimCreation", message);
    }

    /// Writes the names of generated claims into the pod's status. All of them are applied: what an
    /// apply leaves out, it removes.
    async fn name_claims(&self, pod: &Pod, names: &BTreeMap<String, String>) -> Result<(), Error> {
        let entry =
            |(entry, claim): (&String, &String)| json!({"name": entry, "resourceClaimName": claim});
        let statuses: Vec<_> = names.iter().map(entry).collect();
        let (space, own) = (namespace(&pod.metadata), name(&pod.metadata));
        let patch = Patch::Apply {
            manager: MANAGER.into(),
            force: true,
            object: json!({"apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": own, "namespace": space, "uid": uid(&pod.metadata)},
                "status": {"resourceClaimStatuses": statuses}}),
        };
        match self.client.patch_status::<Pod>(space, own, &patch).await {
            // Gone, or another pod has its name by now.
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            other => other.map(drop),
        }
    }

    async fn reserve(&self, pod: &Pod, names: &BTreeMap<String, String>) -> Result<(), Error> {
        let space = namespace(&pod.metadata);
        for own in plan::names(pod, names) {
            let Some(claim) = self.claims.get(space, own) else { return Ok(()) };
            if let Some(reserved) = plan::reserved(pod, &claim) {
                match self.client.update_status(&reserved).await {
                    // Changed by others: that comes as a change.
                    Err(error) if error.is_not_found() || error.is_conflict() => {}
                    other => drop(other?),
                }
            }
        }
        Ok(())
    }

    async fn sync_claim(&self, key: Key) -> Result<Action, Error> {
        let Some(claim) = self.claims.get(&key.0, &key.1) else { return Ok(Action::Done) };
        let kept = self.kept(&claim).await?;
        match self.release(claim, kept).await {
            // Changed by others: that comes as a change.
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(Action::Done),
            other => other.map(|()| Action::Done),
        }
    }

    /// Frees what consumers that are gone held, and deletes a claim whose pod will not run any more.
    async fn release(
        &self,
        claim: Arc<ResourceClaim>,
        kept: Vec<k8s_openapi::api::resource::v1::ResourceClaimConsumerReference>,
    ) -> Result<(), Error> {
        let unused = kept.is_empty();
        let mut latest = (*claim).clone();
        if let Some(freed) = release::freed(&latest, kept) {
            latest = self.client.update_status(&freed).await?;
        }
        if let Some(open) = release::without_finalizer(&claim, &latest) {
            self.client.update(&open).await?;
        }
        let owner = release::owning_pod(&claim);
        let Some((pod, owner)) = owner.filter(|_| unused) else { return Ok(()) };
        // A pod that is not seen may not have come yet: the garbage collector knows better.
        let seen = self.pods.get(namespace(&claim.metadata), pod);
        if seen.is_none_or(|pod| uid(&pod.metadata) == owner && !consumers::is_done(&pod)) {
            return Ok(());
        }
        let params = client::DeleteParams {
            uid: claim.metadata.uid.clone(),
            ..client::DeleteParams::default()
        };
        let (space, own) = (namespace(&claim.metadata), name(&claim.metadata));
        self.client.delete::<ResourceClaim>(space, own, &params).await
    }
}
