//! Disruption: what each PodDisruptionBudget allows, written into its status.
//!
//! Watches budgets, pods and the controllers of pods, whose scale a budget's percents are of. Other
//! owners are asked for their scale when the budget is looked at.

mod plan;
mod scale;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use client::{Action, Change, Client, Error, EventType, Informer, Queue, Recorder, run_workers};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use crate::Context;
use crate::meta::{Key, Map, key, matches, namespace, now, reference, selector};
use plan::Outcome;
use scale::Scales;

/// Budgets looked at at once: each costs a write at most.
const WORKERS: usize = 2;

pub(crate) fn start(context: &Context) {
    let this = Budgets {
        client: context.client.clone(),
        recorder: context.recorder("controllermanager"),
        budgets: context.informers.of(),
        pods: context.informers.of(),
        scales: Scales::new(context),
        queue: Queue::new(),
    };
    this.watch();
    context.tasks.required("disruption controller", this.run());
}

#[derive(Clone)]
struct Budgets {
    client: Client,
    recorder: Recorder,
    budgets: Informer<PodDisruptionBudget>,
    pods: Informer<Pod>,
    scales: Scales,
    queue: Queue<Key>,
}

/// Whether the budget is about pods with these labels.
fn covers(budget: &PodDisruptionBudget, labels: Option<&Map>) -> bool {
    let spec = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    spec.is_some_and(|wanted| matches(&selector(wanted), labels))
}

impl Budgets {
    fn watch(&self) {
        let queue = self.queue.clone();
        self.budgets.on_change(move |change| queue.add(key(&**change.object())));
        let this = self.clone();
        self.pods.on_change(move |change| this.pod_changed(change));
        let this = self.clone();
        self.scales.on_change(move |namespace| {
            this.budgets.list_namespace(namespace).iter().for_each(|b| this.queue.add(key(&**b)));
        });
    }

    fn pod_changed(&self, change: &Change<Pod>) {
        let pods = [Some(change.object()), change.old()];
        for budget in self.budgets.list_namespace(namespace(&change.object().metadata)) {
            let covered = |pod: &Arc<Pod>| covers(&budget, pod.metadata.labels.as_ref());
            if pods.iter().flatten().any(|pod| covered(pod)) {
                self.queue.add(key(&*budget));
            }
        }
    }

    async fn run(self) {
        self.budgets.synced().await;
        self.pods.synced().await;
        self.scales.synced().await;
        let queue = self.queue.clone();
        let work = move |key: Key| {
            let this = self.clone();
            async move { this.sync(key).await }
        };
        run_workers("disruption", queue, WORKERS, work).await;
    }

    async fn sync(&self, key: Key) -> Result<Action, Error> {
        let Some(budget) = self.budgets.get(&key.0, &key.1) else { return Ok(Action::Done) };
        let mut pods = self.pods.list_namespace(&key.0);
        pods.retain(|pod| covers(&budget, pod.metadata.labels.as_ref()));
        if pods.is_empty() {
            self.tell(&budget, EventType::Normal, "NoPods", "No matching pods found".into());
        }
        let expected = match plan::needs_scale(&budget) {
            true => self.scales.of(&pods).await,
            false => Ok(scale::Total { scale: count(&pods), unmanaged: false }),
        };
        let outcome = match expected {
            Err(scale::Failure::Api(error)) => return Err(error),
            Err(scale::Failure::NoController(pod)) => {
                Err(format!("found no controllers for pod {pod:?}"))
            }
            Ok(total) => {
                if total.unmanaged {
                    self.tell_unmanaged(&budget);
                }
                plan::judge(&budget, &pods, total.scale, &now())
            }
        };
        match outcome {
            Ok(outcome) => self.settle(&budget, outcome).await,
            Err(why) => self.refuse(&budget, &why).await,
        }
    }

    async fn settle(
        &self,
        budget: &PodDisruptionBudget,
        outcome: Outcome,
    ) -> Result<Action, Error> {
        for pod in &outcome.not_deleted {
            let at = namespace(&budget.metadata);
            let message = format!("Pod was expected by PDB {at}/{at} to be deleted but it wasn't");
            self.recorder.event(&reference(&**pod), EventType::Warning, "NotDeleted", message);
        }
        if let Some(status) = outcome.status {
            self.write(PodDisruptionBudget { status: Some(status), ..budget.clone() }).await?;
        }
        let again = outcome.recheck.and_then(|seconds| u64::try_from(seconds).ok());
        Ok(again.map_or(Action::Done, |s| Action::After(Duration::from_secs(s.max(1)))))
    }

    /// What cannot be judged allows nothing.
    async fn refuse(&self, budget: &PodDisruptionBudget, why: &str) -> Result<Action, Error> {
        let reason = "CalculateExpectedPodCountFailed";
        let message = format!("Failed to calculate the number of expected pods: {why}");
        self.tell(budget, EventType::Warning, reason, message);
        if let Some(status) = plan::refused(budget, why, &now()) {
            self.write(PodDisruptionBudget { status: Some(status), ..budget.clone() }).await?;
        }
        Ok(Action::Done)
    }

    async fn write(&self, budget: PodDisruptionBudget) -> Result<(), Error> {
        match self.client.update_status(&budget).await {
            Err(error) if error.is_not_found() => Ok(()),
            other => other.map(drop),
        }
    }

    fn tell(&self, about: &PodDisruptionBudget, kind: EventType, reason: &str, message: String) {
        self.recorder.event(&reference(about), kind, reason, message);
    }

    fn tell_unmanaged(&self, budget: &PodDisruptionBudget) {
        let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        let selector = plan::printed(selector);
        let message = format!(
            "Pods selected by this PodDisruptionBudget (selector: {selector}) were found to be unmanaged. As a result, the status of the PDB cannot be calculated correctly, which may result in undefined behavior. To account for these pods please set \".spec.minAvailable\" field of the PDB to an integer value."
        );
        self.tell(budget, EventType::Warning, "UnmanagedPods", message);
    }
}

fn count(pods: &[Arc<Pod>]) -> i32 {
    i32::try_from(pods.len()).unwrap_or(i32::MAX)
}
