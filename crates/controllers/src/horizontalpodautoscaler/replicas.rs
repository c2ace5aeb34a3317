//! How many replicas a metric asks for. Values are in thousandths.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodSpec, ResourceRequirements};

use crate::meta::name;
use crate::pods::{phase, ready};

/// After its start a pod's CPU says little for so long (upstream's --horizontal-pod-autoscaler-cpu-
/// initialization-period).
const CPU_START: SignedDuration = SignedDuration::from_mins(5);
/// A pod that was never ready within so long after its start has not become ready yet (upstream's
/// --horizontal-pod-autoscaler-initial-readiness-delay).
const FIRST_READINESS: SignedDuration = SignedDuration::from_secs(30);

/// A pod's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sample {
    pub(crate) value: i64,
    pub(crate) at: Timestamp,
    pub(crate) window: SignedDuration,
}

pub(crate) type Samples = BTreeMap<String, Sample>;

/// How far from the target is near enough.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Tolerance {
    pub(crate) up: f64,
    pub(crate) down: f64,
}

impl Tolerance {
    fn takes(self, ratio: f64) -> bool {
        1.0 - self.down <= ratio && ratio <= 1.0 + self.up
    }
}

/// What a metric is held against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// Percents of what the pods request.
    Utilization(i32),
    /// For each pod.
    Average(i64),
}

/// A proposal, with what the status shows of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Proposal {
    pub(crate) replicas: i32,
    pub(crate) utilization: Option<i32>,
    pub(crate) average: i64,
}

/// What a proposal for pods is made from.
pub(crate) struct Pods<'a> {
    pub(crate) pods: &'a [Arc<Pod>],
    /// Of a resource or of another metric of pods.
    pub(crate) resource: &'a str,
    /// Of one container only.
    pub(crate) container: Option<&'a str>,
    pub(crate) current: i32,
    pub(crate) tolerance: Tolerance,
    pub(crate) now: Timestamp,
}

#[derive(Debug, Default)]
struct Groups {
    ready: usize,
    unready: BTreeSet<String>,
    missing: BTreeSet<String>,
    ignored: BTreeSet<String>,
}

fn ceil(value: f64) -> i32 {
    // Saturates.
    value.ceil() as i32
}

impl Pods<'_> {
    /// The pods' own values against the target.
    pub(crate) fn propose(&self, target: Target, samples: Samples) -> Result<Proposal, String> {
        if self.pods.is_empty() {
            return Err("no pods returned by selector while calculating replica count".into());
        }
        let groups = self.group(&samples);
        let mut samples = samples;
        samples.retain(|pod, _| !groups.ignored.contains(pod) && !groups.unready.contains(pod));
        if samples.is_empty() {
            return Err("did not receive metrics for targeted pods (pods might be unready)".into());
        }
        let requests = match target {
            Target::Utilization(_) => self.requests()?,
            Target::Average(_) => BTreeMap::new(),
        };
        let (ratio, utilization, average) = ratio(target, &samples, &requests)?;
        let proposal = |replicas| Proposal { replicas, utilization, average };
        let with_unready = !groups.unready.is_empty() && ratio > 1.0;
        if !with_unready && groups.missing.is_empty() {
            return Ok(proposal(match self.tolerance.takes(ratio) {
                true => self.current,
                false => ceil(ratio * groups.ready as f64),
            }));
        }
        // Pods without a value speak against every change.
        let mut add = |pod: &String, value| {
            let sample = Sample { value, at: self.now, window: SignedDuration::ZERO };
            samples.insert(pod.clone(), sample);
        };
        for pod in &groups.missing {
            match target {
                _ if ratio > 1.0 => add(pod, 0),
                Target::Utilization(percent) if ratio < 1.0 => {
                    let requested = requests.get(pod).copied().unwrap_or(0);
                    add(pod, requested * i64::from(percent.max(100)) / 100);
                }
                Target::Average(value) if ratio < 1.0 => add(pod, value),
                _ => {}
            }
        }
        if with_unready {
            groups.unready.iter().for_each(|pod| add(pod, 0));
        }
        let (again, ..) = self::ratio(target, &samples, &requests)?;
        let turned = (ratio < 1.0 && again > 1.0) || (ratio > 1.0 && again < 1.0);
        if self.tolerance.takes(again) || turned {
            return Ok(proposal(self.current));
        }
        let replicas = ceil(again * samples.len() as f64);
        let turned =
            (again < 1.0 && replicas > self.current) || (again > 1.0 && replicas < self.current);
        Ok(proposal(if turned { self.current } else { replicas }))
    }

    fn group(&self, samples: &Samples) -> Groups {
        let mut groups = Groups::default();
        for pod in self.pods {
            let own = name(&pod.metadata).to_owned();
            if pod.metadata.deletion_timestamp.is_some() || phase(pod) == "Failed" {
                groups.ignored.insert(own);
            } else if phase(pod) == "Pending" {
                groups.unready.insert(own);
            } else {
                match samples.get(&own) {
                    None => drop(groups.missing.insert(own)),
                    Some(sample) if self.resource == "cpu" && self.starts(pod, sample) => {
                        groups.unready.insert(own);
                    }
                    Some(_) => groups.ready += 1,
                }
            }
        }
        groups
    }

    /// Whether the pod's CPU is still that of its start.
    fn starts(&self, pod: &Pod, sample: &Sample) -> bool {
        let status = pod.status.as_ref();
        let start = status.and_then(|s| s.start_time.as_ref()).map(|t| t.0);
        let condition =
            status.and_then(|s| s.conditions.as_ref()?.iter().find(|c| c.type_ == "Ready"));
        let (Some(start), Some(condition)) = (start, condition) else { return true };
        let since = condition.last_transition_time.as_ref().map_or(start, |t| t.0);
        let is_false = condition.status == "False";
        let after = |at: Timestamp, delay| at.checked_add(delay).unwrap_or(at);
        match after(start, CPU_START) > self.now {
            true => is_false || sample.at < after(since, sample.window),
            false => is_false && after(start, FIRST_READINESS) > since,
        }
    }

    /// What each pod requests.
    fn requests(&self) -> Result<BTreeMap<String, i64>, String> {
        let mut requests = BTreeMap::new();
        for pod in self.pods {
            let Some(spec) = &pod.spec else { continue };
            let own = name(&pod.metadata);
            requests.insert(own.to_owned(), self.request(spec, own)?);
        }
        Ok(requests)
    }

    fn request(&self, spec: &PodSpec, pod: &str) -> Result<i64, String> {
        let of = |resources: Option<&ResourceRequirements>| -> Option<i64> {
            let amount = resources?.requests.as_ref()?.get(self.resource)?;
            api::quantity::Quantity::parse(&amount.0).ok().map(|q| q.milli_value())
        };
        if self.container.is_none()
            && let Some(whole) = of(spec.resources.as_ref())
        {
            return Ok(whole);
        }
        let sidecars = spec.init_containers.iter().flatten();
        let sidecars = sidecars.filter(|c| c.restart_policy.as_deref() == Some("Always"));
        let mut sum = 0;
        for container in spec.containers.iter().chain(sidecars) {
            if self.container.is_some_and(|wanted| wanted != container.name) {
                continue;
            }
            sum += of(container.resources.as_ref()).ok_or_else(|| {
                let (resource, container) = (self.resource, &container.name);
                format!("missing request for {resource} in container {container} of Pod {pod}")
            })?;
        }
        Ok(sum)
    }

    fn ready(&self) -> usize {
        self.pods.iter().filter(|p| phase(p) == "Running" && ready(p)).count()
    }

    /// One value for all pods against the target for all.
    pub(crate) fn propose_for(&self, usage: i64, target: i64) -> Result<Proposal, String> {
        let ratio = usage as f64 / target as f64;
        let proposal = |replicas| Proposal { replicas, utilization: None, average: usage };
        if self.current == 0 {
            return Ok(proposal(ceil(ratio)));
        }
        if self.tolerance.takes(ratio) {
            return Ok(proposal(self.current));
        }
        if self.pods.is_empty() {
            return Err("unable to calculate ready pods: no pods returned by selector while \
                        calculating replica count"
                .into());
        }
        Ok(proposal(ceil(ratio * self.ready() as f64)))
    }

    /// One value for all pods against the target for each.
    pub(crate) fn propose_per_pod(&self, usage: i64, target: i64, replicas: i32) -> Proposal {
        let ratio = usage as f64 / (target as f64 * f64::from(replicas));
        let wanted = match self.tolerance.takes(ratio) {
            true => replicas,
            false => ceil(usage as f64 / target as f64),
        };
        let average = (usage as f64 / f64::from(replicas)).ceil() as i64;
        Proposal { replicas: wanted, utilization: None, average }
    }
}

/// The ratio of use to target, the utilization, and the average use.
fn ratio(
    target: Target,
    samples: &Samples,
    requests: &BTreeMap<String, i64>,
) -> Result<(f64, Option<i32>, i64), String> {
    let average = |values: &[i64]| {
        values.iter().sum::<i64>() / i64::try_from(values.len().max(1)).unwrap_or(i64::MAX)
    };
    match target {
        Target::Average(target) => {
            let values: Vec<i64> = samples.values().map(|s| s.value).collect();
            let average = average(&values);
            Ok((average as f64 / target as f64, None, average))
        }
        Target::Utilization(target) => {
            let known = samples.iter().filter_map(|(pod, s)| Some((s.value, requests.get(pod)?)));
            let (values, requested): (Vec<i64>, Vec<i64>) = known.map(|(v, r)| (v, *r)).unzip();
            let requested: i64 = requested.iter().sum();
            if requested == 0 {
                return Err("no metrics returned matched known pods".into());
            }
            let utilization = values.iter().sum::<i64>() * 100 / requested;
            let utilization = i32::try_from(utilization).unwrap_or(i32::MAX);
            let ratio = f64::from(utilization) / f64::from(target);
            Ok((ratio, Some(utilization), average(&values)))
        }
    }
}
