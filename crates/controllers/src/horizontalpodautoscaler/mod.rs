//! HorizontalPodAutoscaler: sizes workloads by metrics.
//!
//! Watches HorizontalPodAutoscalers and Pods; each autoscaler looks at its metrics every fifteen seconds,
//! since metrics tell nobody that they change. Any kind with a `scale` subresource is a target.

mod evaluate;
mod metrics;
mod normalize;
mod replicas;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::selector::LabelSelector;
use bytes::Bytes;
use client::{Action, Change, Client, Error, EventType, Informer, Queue, Recorder};
use http::Method;
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::autoscaling::v2::{
    CrossVersionObjectReference, HPAScalingRules, HorizontalPodAutoscaler,
    HorizontalPodAutoscalerCondition, HorizontalPodAutoscalerStatus,
};
use k8s_openapi::api::core::v1::Pod;
use tokio::time::Instant;

use self::evaluate::{Evaluated, Failure, Subject, evaluate};
use self::metrics::Metrics;
use self::normalize::{History, Range};
use self::replicas::{Pods, Tolerance};
use crate::Context;
use crate::discovery::{ApiResource, discover};
use crate::figures::autoscaling::{self as figures, Scaling};
use crate::harness::{Reconciler, same_status};
use crate::meta::{Key, key, matches, now, reference};

/// Autoscalers looked at together (upstream's --concurrent-horizontal-pod-autoscaler-syncs).
const WORKERS: usize = 5;
/// Between two looks (upstream's --horizontal-pod-autoscaler-sync-period).
const PERIOD: Duration = Duration::from_secs(15);
/// Discovery is a request a group: it is not repeated for each look.
const RESOURCES_MAX: Duration = Duration::from_secs(600);
/// A kind that is not there may come with a definition.
const RESOURCES_MIN: Duration = Duration::from_secs(30);
/// Distance from the target that is near enough (upstream's --horizontal-pod-autoscaler-tolerance).
const TOLERANCE: f64 = 0.1;

pub(crate) fn start(context: &Context) {
    let this = Autoscalers {
        metrics: Metrics { client: context.client.clone() },
        client: context.client.clone(),
        recorder: context.recorder("horizontal-pod-autoscaler"),
        autoscalers: context.informers.of(),
        pods: context.informers.of(),
        memory: Arc::default(),
    };
    let queue = Queue::new();
    let keys = queue.clone();
    this.autoscalers.on_change(move |change: &Change<HorizontalPodAutoscaler>| {
        let generation = |a: &HorizontalPodAutoscaler| a.metadata.generation;
        let new = change.object();
        if change.old().is_none_or(|old| generation(old) != generation(new)) {
            keys.add(key(&**new));
        }
    });
    let own = "horizontal-pod-autoscaler-controller";
    crate::harness::start(context, own, WORKERS, queue, this);
}

#[derive(Debug, Default)]
struct Memory {
    history: HashMap<Key, History>,
    /// Which pods each autoscaler's target has.
    selectors: HashMap<Key, LabelSelector>,
    /// What the server has, and since when that is known.
    resources: Option<(Instant, Arc<Vec<ApiResource>>)>,
}

#[derive(Clone)]
struct Autoscalers {
    client: Client,
    recorder: Recorder,
    metrics: Metrics,
    autoscalers: Informer<HorizontalPodAutoscaler>,
    pods: Informer<Pod>,
    memory: Arc<Mutex<Memory>>,
}

impl Reconciler for Autoscalers {
    type Key = Key;

    async fn synced(&self) {
        self.autoscalers.synced().await;
        self.pods.synced().await;
    }

    async fn reconcile(&self, key: Key) -> Result<Action, Error> {
        let Some(autoscaler) = self.autoscalers.get(&key.0, &key.1) else {
            let mut memory = self.memory();
            memory.history.remove(&key);
            memory.selectors.remove(&key);
            return Ok(Action::Done);
        };
        let mut look = Look {
            this: self,
            key: &key,
            of: &autoscaler,
            status: autoscaler.status.clone().unwrap_or_default(),
            scaling: Scaling::failed(false),
        };
        let start = Instant::now();
        look.run().await;
        figures::reconciled(look.scaling, start.elapsed());
        let status = look.status;
        if !same_status(autoscaler.status.as_ref(), Some(&status)) {
            let new = HorizontalPodAutoscaler {
                status: Some(status),
                ..HorizontalPodAutoscaler::clone(&autoscaler)
            };
            match self.client.update_status(&new).await {
                Err(error) if error.is_not_found() || error.is_conflict() => {}
                Err(error) => {
                    let about = reference(&*autoscaler);
                    let reason = "FailedUpdateStatus";
                    self.recorder.event(&about, EventType::Warning, reason, error.to_string());
                }
                Ok(_) => {}
            }
        }
        Ok(Action::After(PERIOD))
    }
}

impl Autoscalers {
    /// The server's resources; asked for again when they are old or lack the target's.
    async fn resources(
        &self,
        target: &CrossVersionObjectReference,
    ) -> Result<Arc<Vec<ApiResource>>, Error> {
        let known = self.memory().resources.clone();
        if let Some((at, all)) = known {
            let has = resources_of(&all, target.api_version.as_deref(), &target.kind).is_some();
            if at.elapsed() < if has { RESOURCES_MAX } else { RESOURCES_MIN } {
                return Ok(all);
            }
        }
        let all = Arc::new(discover(&self.client).await?.resources);
        self.memory().resources = Some((Instant::now(), all.clone()));
        Ok(all)
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The resources of a kind, in the version that the reference names first.
fn resources_of<'a>(
    all: &'a [ApiResource],
    api_version: Option<&str>,
    kind: &str,
) -> Option<&'a ApiResource> {
    let version = api_version.unwrap_or("v1");
    let group = version.split_once('/').map_or("", |(group, _)| group);
    all.iter().find(|r| r.group == group && r.kind == kind)
}

/// One look at one autoscaler.
struct Look<'a> {
    this: &'a Autoscalers,
    key: &'a Key,
    of: &'a HorizontalPodAutoscaler,
    /// As it will be written.
    status: HorizontalPodAutoscalerStatus,
    /// What it comes to. A look that ends early has failed.
    scaling: Scaling,
}

impl Look<'_> {
    fn event(&self, kind: EventType, reason: &str, message: String) {
        self.this.recorder.event(&reference(self.of), kind, reason, message);
    }

    fn set(&mut self, kind: &str, value: bool, reason: &str, message: &str) {
        let value = if value { "True" } else { "False" };
        let conditions = self.status.conditions.get_or_insert_default();
        let new = HorizontalPodAutoscalerCondition {
            type_: kind.into(),
            status: value.into(),
            reason: Some(reason.into()),
            message: Some(message.into()),
            last_transition_time: Some(now()),
        };
        match conditions.iter_mut().find(|c| c.type_ == kind) {
            None => conditions.push(new),
            Some(old) if old.status == value => {
                let since = old.last_transition_time.take();
                *old = HorizontalPodAutoscalerCondition { last_transition_time: since, ..new };
            }
            Some(old) => *old = new,
        }
    }

    async fn run(&mut self) {
        let spec = self.of.spec.clone();
        let all = match self.this.resources(&spec.scale_target_ref).await {
            Ok(all) => all,
            Err(error) => return self.no_scale(&error.to_string()),
        };
        let target = &spec.scale_target_ref;
        let Some(resource) = resources_of(&all, target.api_version.as_deref(), &target.kind) else {
            let group = target.api_version.as_deref().unwrap_or("v1");
            let group = group.split_once('/').map_or("", |(group, _)| group);
            let kind = api::status::qualified(group, &target.kind);
            return self.no_scale(&format!("no matches for kind {kind:?}"));
        };
        let place = format!("{}/scale", resource.path(&self.key.0, &target.name));
        let sent: Result<Scale, Error> =
            self.this.client.send(Method::GET, place.clone(), None, Bytes::new()).await;
        match sent {
            Err(error) => self.no_scale(&error.to_string()),
            Ok(scale) => {
                let message = "the HPA controller was able to get the target's current scale";
                self.set("AbleToScale", true, "SucceededGetScale", message);
                self.decide(&all, &place, scale).await;
            }
        }
    }

    fn no_scale(&mut self, error: &str) {
        self.event(EventType::Warning, "FailedGetScale", error.to_owned());
        let message =
            format!("the HPA controller was unable to get the target's current scale: {error}");
        self.set("AbleToScale", false, "FailedGetScale", &message);
    }

    async fn decide(&mut self, all: &[ApiResource], place: &str, scale: Scale) {
        let spec = self.of.spec.clone();
        let current = scale.spec.as_ref().and_then(|s| s.replicas).unwrap_or(0);
        let (min, max) = (spec.min_replicas.unwrap_or(1), spec.max_replicas);
        let time = Instant::now();
        self.history(|history| history.begin(current, time));
        self.status.current_replicas = Some(current);
        if current == 0 && min != 0 {
            let message = "scaling is disabled since the replica count of the target is zero";
            self.set("ScalingActive", false, "ScalingDisabled", message);
            self.status.desired_replicas = 0;
            self.scaling = Scaling::between(current, current);
            return;
        }
        if current > max {
            let why = "Current number of replicas above Spec.MaxReplicas";
            return self.rescale(place, scale, max, why).await;
        }
        if current < min {
            let why = "Current number of replicas below Spec.MinReplicas";
            return self.rescale(place, scale, min, why).await;
        }
        let Some((proposed, metric)) = self.propose(all, &scale, current).await else { return };
        let range = Range { min, max, current };
        let behavior = spec.behavior.as_ref();
        let normal = self.history(|history| history.normalize(range, proposed, behavior, time));
        self.set("AbleToScale", true, normal.able.reason, normal.able.message);
        let limit = normal.limit;
        self.set("ScalingLimited", normal.is_limited, limit.reason, limit.message);
        let why = match proposed > current {
            true => format!("{metric} above target"),
            false => "All metrics below target".to_owned(),
        };
        self.status.desired_replicas = current;
        self.scaling = Scaling::between(current, current);
        if normal.replicas != current {
            self.rescale(place, scale, normal.replicas, &why).await;
        }
    }

    fn history<T>(&self, with: impl FnOnce(&mut History) -> T) -> T {
        with(self.this.memory().history.entry(self.key.clone()).or_default())
    }

    async fn rescale(&mut self, place: &str, mut scale: Scale, to: i32, why: &str) {
        let from = scale.spec.as_ref().and_then(|s| s.replicas).unwrap_or(0);
        scale.spec.get_or_insert_default().replicas = Some(to);
        let body = Bytes::from(serde_json::to_vec(&scale).expect("a scale always encodes"));
        let sent: Result<Scale, Error> =
            self.this.client.send(Method::PUT, place.to_owned(), None, body).await;
        self.scaling = Scaling::between(from, to);
        if let Err(error) = sent {
            self.scaling = Scaling::failed(false);
            let message = format!("New size: {to}; reason: {why}; error: {error}");
            self.event(EventType::Warning, "FailedRescale", message);
            let message =
                format!("the HPA controller was unable to update the target scale: {error}");
            return self.set("AbleToScale", false, "FailedUpdateScale", &message);
        }
        let message = format!("the HPA controller was able to update the target scale to {to}");
        self.set("AbleToScale", true, "SucceededRescale", &message);
        let message = format!("New size: {to}; reason: {why}");
        self.event(EventType::Normal, "SuccessfulRescale", message);
        self.history(|history| history.scaled(from, to, Instant::now()));
        self.status.desired_replicas = to;
        self.status.last_scale_time = Some(now());
    }

    /// The largest proposal of all metrics, and its metric; `None` if the autoscaler must not act.
    async fn propose(
        &mut self,
        all: &[ApiResource],
        scale: &Scale,
        current: i32,
    ) -> Option<(i32, String)> {
        let status = scale.status.clone().unwrap_or_default();
        let text = status.selector.unwrap_or_default();
        let pods = self.pods_of(&text)?;
        let spec = self.of.spec.clone();
        let specs = spec.metrics.unwrap_or_default();
        let behavior = spec.behavior.unwrap_or_default();
        let tolerance = Tolerance {
            up: tolerance(behavior.scale_up.as_ref()),
            down: tolerance(behavior.scale_down.as_ref()),
        };
        let (mut found, mut failures): (Vec<Evaluated>, Vec<Failure>) = (Vec::new(), Vec::new());
        for metric in &specs {
            let about = metric.object.as_ref().map(|o| &o.described_object);
            let resource = about
                .and_then(|about| resources_of(all, about.api_version.as_deref(), &about.kind));
            let subject = Subject {
                metrics: &self.this.metrics,
                namespace: &self.key.0,
                selector: &text,
                pods: Pods {
                    pods: &pods,
                    resource: "",
                    container: None,
                    current,
                    tolerance,
                    now: jiff::Timestamp::now(),
                },
                replicas: status.replicas,
                resource: resource.map(|r| api::status::qualified(&r.group, &r.name)),
            };
            let start = Instant::now();
            let evaluated = evaluate(&subject, metric).await;
            let scaling = match &evaluated {
                Ok(evaluated) => Scaling::between(current, evaluated.replicas),
                Err(failure) => Scaling::failed(failure.reason == "InvalidMetricSourceType"),
            };
            figures::computed(scaling, &metric.type_, start.elapsed());
            match evaluated {
                Ok(evaluated) => found.push(evaluated),
                Err(failure) => {
                    self.event(EventType::Warning, failure.reason, failure.message.clone());
                    failures.push(failure);
                }
            }
        }
        self.choose(specs.len(), current, found, &failures)
    }

    fn choose(
        &mut self,
        count: usize,
        current: i32,
        found: Vec<Evaluated>,
        failures: &[Failure],
    ) -> Option<(i32, String)> {
        let largest = found.iter().rev().max_by_key(|e| e.replicas);
        let largest = largest.map(|e| (e.replicas, e.name.clone()));
        self.status.current_metrics = Some(found.into_iter().map(|e| e.status).collect());
        let shrinks = largest.as_ref().is_none_or(|(replicas, _)| *replicas < current);
        if let Some(first) = failures.first().filter(|_| shrinks) {
            let (invalid, story) = (failures.len(), &first.story);
            let message =
                format!("the HPA was unable to compute the replica count: {}", first.message);
            self.set("ScalingActive", false, first.reason, &message);
            let message = format!(
                "invalid metrics ({invalid} invalid out of {count}), first error is: {story}"
            );
            self.event(EventType::Warning, "FailedComputeMetricsReplicas", message);
            return None;
        }
        let (replicas, name) = largest?;
        let message =
            format!("the HPA was able to successfully calculate a replica count from {name}");
        self.set("ScalingActive", true, "ValidMetricFound", &message);
        Some((replicas, name))
    }

    /// The target's pods, if no other autoscaler has them, too.
    fn pods_of(&mut self, text: &str) -> Option<Vec<Arc<Pod>>> {
        if text.is_empty() {
            self.event(EventType::Warning, "SelectorRequired", "selector is required".into());
            let message = "the HPA target's scale is missing a selector";
            self.set("ScalingActive", false, "InvalidSelector", message);
            return None;
        }
        let selector = match LabelSelector::parse(text) {
            Ok(selector) => selector,
            Err(error) => {
                let message = format!(
                    "couldn't convert selector into a corresponding internal selector object: \
                     {error}"
                );
                self.event(EventType::Warning, "InvalidSelector", message.clone());
                self.set("ScalingActive", false, "InvalidSelector", &message);
                return None;
            }
        };
        let mut pods = self.this.pods.list_namespace(&self.key.0);
        pods.retain(|pod| matches(&selector, pod.metadata.labels.as_ref()));
        let rivals = {
            let mut memory = self.this.memory();
            memory.selectors.insert(self.key.clone(), selector);
            let takes =
                |s: &LabelSelector| pods.iter().any(|pod| matches(s, pod.metadata.labels.as_ref()));
            let same = memory.selectors.iter().filter(|(k, s)| k.0 == self.key.0 && takes(s));
            let mut names: Vec<String> = same.map(|(k, _)| format!("{}/{}", k.0, k.1)).collect();
            names.sort();
            names
        };
        if rivals.len() > 1 {
            let rivals = rivals.join(" ");
            let message =
                format!("pods by selector {text} are controlled by multiple HPAs: [{rivals}]");
            self.event(EventType::Warning, "AmbiguousSelector", message.clone());
            self.set("ScalingActive", false, "AmbiguousSelector", &message);
            return None;
        }
        Some(pods)
    }
}

fn tolerance(rules: Option<&HPAScalingRules>) -> f64 {
    let amount = rules.and_then(|r| r.tolerance.as_ref());
    let parsed = amount.and_then(|a| api::quantity::Quantity::parse(&a.0).ok());
    parsed.map_or(TOLERANCE, |q| q.milli_value() as f64 / 1000.0)
}
