//! Config rollouts: a Deployment, StatefulSet or DaemonSet that asks for it is rolled out when a ConfigMap
//! or Secret that its template refers to changes. Upstream has no such controller.
//!
//! Watches these workloads, ConfigMaps and, once a workload asks, Secrets. What rolls out is the workload's own controller, at its
//! own pace: this one changes an annotation of the template.

mod plan;
#[cfg(test)]
mod tests;
mod workload;

use std::sync::{Arc, OnceLock};

use client::{
    Action, Change, Client, Error, EventType, Index, IndexKey, Informer, Informers, Patch, Queue,
    Recorder, Resource,
};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use serde_json::json;

use self::plan::{Kind, Step};
use self::workload::Workload;
use crate::Context;
use crate::harness::Reconciler;
use crate::meta::{Key, name, namespace, reference};

const NAME: &str = "config-rollout-controller";
/// Workloads of a kind looked at at once: a change of one ConfigMap may concern several.
const WORKERS: usize = 2;

/// Workloads that ask for rollouts, by the configuration that their templates refer to.
struct ByReference;

fn place(namespace: &str, kind: Kind, name: &str) -> String {
    format!("{namespace}/{}/{name}", kind.word())
}

impl<W: Workload> IndexKey<W> for ByReference {
    fn values(workload: &W) -> Vec<String> {
        let (meta, Some(template)) = (workload.metadata(), workload.template()) else {
            return Vec::new();
        };
        if !plan::asks(meta) {
            return Vec::new();
        }
        let references = plan::references(template).into_keys();
        references.map(|(kind, name)| place(namespace(meta), kind, &name)).collect()
    }
}

pub(crate) fn start(context: &Context) {
    start_kind::<Deployment>(context);
    start_kind::<StatefulSet>(context);
    start_kind::<DaemonSet>(context);
}

fn start_kind<W: Workload>(context: &Context) {
    let workloads = context.informers.of::<W>();
    let this = Rollouts {
        client: context.client.clone(),
        recorder: context.recorder(NAME),
        by_reference: workloads.index(),
        workloads,
        maps: context.informers.of(),
        secrets: Arc::default(),
        informers: context.informers.clone(),
        queue: Queue::new(),
    };
    let keys = this.queue.clone();
    this.workloads.on_change(move |change| {
        let workload = change.object();
        if !matches!(change, Change::Deleted(_)) && plan::asks(workload.metadata()) {
            keys.add(crate::meta::key(&**workload));
        }
    });
    this.watch(&this.maps, Kind::ConfigMap);
    crate::harness::start(context, NAME, WORKERS, this.queue.clone(), this);
}

struct Rollouts<W> {
    client: Client,
    recorder: Recorder,
    workloads: Informer<W>,
    by_reference: Index<W, ByReference>,
    maps: Informer<ConfigMap>,
    secrets: Arc<OnceLock<Informer<Secret>>>,
    informers: Informers,
    queue: Queue<Key>,
}

// Not derived: the derive asks that `W` is `Clone`, too.
impl<W> Clone for Rollouts<W> {
    fn clone(&self) -> Rollouts<W> {
        Rollouts {
            client: self.client.clone(),
            recorder: self.recorder.clone(),
            workloads: self.workloads.clone(),
            by_reference: self.by_reference.clone(),
            maps: self.maps.clone(),
            secrets: self.secrets.clone(),
            informers: self.informers.clone(),
            queue: self.queue.clone(),
        }
    }
}

impl<W: Workload> Rollouts<W> {
    /// Secrets, which nobody holds in memory as long as no workload asks.
    fn secrets(&self) -> &Informer<Secret> {
        self.secrets.get_or_init(|| {
            let secrets = self.informers.of();
            self.watch(&secrets, Kind::Secret);
            secrets
        })
    }

    fn watch<K: Resource>(&self, configuration: &Informer<K>, kind: Kind) {
        let (index, keys) = (self.by_reference.clone(), self.queue.clone());
        configuration.on_change(move |change| {
            let meta = change.object().metadata();
            let users = index.get(&place(namespace(meta), kind, name(meta)));
            users.iter().for_each(|workload| keys.add(crate::meta::key(&**workload)));
        });
    }

    async fn write(&self, workload: &W, hash: &str, rolls_out: bool) -> Result<(), Error> {
        let meta = workload.metadata();
        let mut body = json!({"metadata": {"resourceVersion": meta.resource_version,
            "annotations": {(plan::OBSERVED): hash}}});
        if rolls_out {
            body["spec"]["template"]["metadata"]["annotations"][plan::HASH] = hash.into();
        }
        let patch = Patch::Merge(body);
        match self.client.patch::<W>(namespace(meta), name(meta), &patch).await {
            // Gone, or changed by others: that comes as a change.
            Err(error) if error.is_not_found() || error.is_conflict() => return Ok(()),
            other => drop(other?),
        }
        if rolls_out {
            let message = "Rolling out because configuration that the pod template refers to has \
                           changed";
            let about = reference(workload);
            self.recorder.event(&about, EventType::Normal, "ConfigurationChanged", message);
        }
        Ok(())
    }
}

impl<W: Workload> Reconciler for Rollouts<W> {
    type Key = Key;

    async fn synced(&self) {
        self.workloads.synced().await;
        self.maps.synced().await;
    }

    async fn reconcile(&self, (space, own): Key) -> Result<Action, Error> {
        let Some(workload) = self.workloads.get(&space, &own) else { return Ok(Action::Done) };
        let Some(template) = workload.template() else { return Ok(Action::Done) };
        if !plan::asks(workload.metadata()) {
            return Ok(Action::Done);
        }
        let secrets = self.secrets();
        secrets.synced().await;
        let content = |kind: Kind, name: &str| match kind {
            Kind::ConfigMap => self.maps.get(&space, name).map(|map| plan::of_map(&map)),
            Kind::Secret => secrets.get(&space, name).map(|secret| plan::of_secret(&secret)),
        };
        match plan::step(workload.metadata(), template, content) {
            Step::Nothing => {}
            Step::Observe(hash) => self.write(&workload, &hash, false).await?,
            Step::RollOut(hash) => self.write(&workload, &hash, true).await?,
        }
        Ok(Action::Done)
    }
}
