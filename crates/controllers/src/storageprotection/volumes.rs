//! Volumes: protected while bound.

use client::{Action, Client, Error, Informer, Queue, run_workers};
use k8s_openapi::api::core::v1::PersistentVolume;

use super::{WORKERS, plan, settle};
use crate::Context;
use crate::meta::name;

const FINALIZER: &str = "kubernetes.io/pv-protection";

pub(crate) fn start(context: &Context) {
    let this = Volumes {
        client: context.client.clone(),
        volumes: context.informers.of(),
        queue: Queue::new(),
    };
    let queue = this.queue.clone();
    this.volumes.on_change(move |change| {
        let meta = &change.object().metadata;
        if plan::open(meta, FINALIZER) {
            queue.add(name(meta).to_owned());
        }
    });
    context.tasks.required("volume protection", this.run());
}

#[derive(Clone)]
struct Volumes {
    client: Client,
    volumes: Informer<PersistentVolume>,
    queue: Queue<String>,
}

impl Volumes {
    async fn run(self) {
        self.volumes.synced().await;
        let queue = self.queue.clone();
        let work = move |name: String| {
            let this = self.clone();
            async move { this.sync(&name).await }
        };
        run_workers("volume protection", queue, WORKERS, work).await;
    }

    async fn sync(&self, name: &str) -> Result<Action, Error> {
        let Some(volume) = self.volumes.get("", name) else { return Ok(Action::Done) };
        settle(&self.client, &*volume, FINALIZER, plan::bound(&volume)).await
    }
}
