//! One metric of an autoscaler: the proposal, its name in messages, and what the status shows.

use api::quantity::Quantity;
use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricStatus, ExternalMetricStatus, MetricIdentifier, MetricSpec,
    MetricStatus, MetricTarget, MetricValueStatus, ObjectMetricStatus, PodsMetricStatus,
    ResourceMetricStatus,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Amount;

use super::metrics::{Metrics, text};
use super::replicas::{Pods, Proposal, Target};

/// The target, seen by a metric.
pub(crate) struct Subject<'a> {
    pub(crate) metrics: &'a Metrics,
    pub(crate) namespace: &'a str,
    /// Of the target's pods.
    pub(crate) selector: &'a str,
    pub(crate) pods: Pods<'a>,
    /// As the target's status tells.
    pub(crate) replicas: i32,
    /// The plural and group of the kind that an object metric names.
    pub(crate) resource: Option<String>,
}

#[derive(Debug)]
pub(crate) struct Evaluated {
    pub(crate) replicas: i32,
    pub(crate) name: String,
    pub(crate) status: MetricStatus,
}

/// A reason for the condition and the event, their message, and the whole story.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    pub(crate) story: String,
}

fn failure(reason: &'static str, story: &str) -> impl Fn(String) -> Failure {
    move |message| Failure { reason, story: format!("{story}: {message}"), message }
}

fn milli(amount: &Amount) -> i64 {
    Quantity::parse(&amount.0).map_or(0, |q| q.milli_value())
}

/// Thousandths as the API writes them; memory in whole bytes.
fn amount(resource: &str, milli: i64) -> Amount {
    match (resource, milli % 1000) {
        (_, 0) if resource != "memory" => Amount((milli / 1000).to_string()),
        ("memory", 0) => Amount(binary(milli / 1000)),
        _ => Amount(format!("{milli}m")),
    }
}

fn binary(bytes: i64) -> String {
    let units = [("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)];
    let fits = units.iter().find(|(_, size)| bytes != 0 && bytes % size == 0);
    fits.map_or_else(|| bytes.to_string(), |(unit, size)| format!("{}{unit}", bytes / size))
}

pub(crate) async fn evaluate(of: &Subject<'_>, spec: &MetricSpec) -> Result<Evaluated, Failure> {
    match spec.type_.as_str() {
        "Resource" => resource(of, spec).await,
        "ContainerResource" => container(of, spec).await,
        "Pods" => pods(of, spec).await,
        "Object" => object(of, spec).await,
        "External" => external(of, spec).await,
        other => {
            let message = format!("unknown metric source type {other:?}");
            let story = message.clone();
            Err(Failure { reason: "InvalidMetricSourceType", message, story })
        }
    }
}

fn absent() -> String {
    "the metric's source is absent".to_owned()
}

async fn of_resource(
    of: &Subject<'_>,
    resource: &str,
    container: Option<&str>,
    target: &MetricTarget,
) -> Result<(Proposal, MetricValueStatus), String> {
    let (wanted, what) = match (&target.average_value, target.average_utilization) {
        (Some(value), _) => (Target::Average(milli(value)), "usage"),
        (None, Some(percent)) => (Target::Utilization(percent), "utilization"),
        (None, None) => {
            return Err(
                "invalid resource metric source: neither an average utilization target nor \
                        an average value (usage) target was set"
                    .into(),
            );
        }
    };
    let samples = of.metrics.resource(of.namespace, of.selector, resource, container).await;
    let samples =
        samples.map_err(|error| format!("unable to get metrics for resource {resource}: {error}"));
    let pods = Pods { resource, container, ..of.pods };
    let proposal = samples.and_then(|samples| pods.propose(wanted, samples));
    let proposal = proposal.map_err(|error| format!("failed to get {resource} {what}: {error}"))?;
    let current = MetricValueStatus {
        average_utilization: proposal.utilization,
        average_value: Some(amount(resource, proposal.average)),
        value: None,
    };
    Ok((proposal, current))
}

async fn resource(of: &Subject<'_>, spec: &MetricSpec) -> Result<Evaluated, Failure> {
    let own = spec.resource.as_ref().map_or("", |r| r.name.as_str());
    let story = format!("failed to get {own} resource metric value");
    let failed = failure("FailedGetResourceMetric", &story);
    let source = spec.resource.as_ref().ok_or_else(|| failed(absent()))?;
    let (proposal, current) = of_resource(of, own, None, &source.target).await.map_err(&failed)?;
    let name = match proposal.utilization {
        Some(_) => format!("{own} resource utilization (percentage of request)"),
        None => format!("{own} resource"),
    };
    let status = ResourceMetricStatus { name: own.into(), current };
    let status = MetricStatus {
        type_: spec.type_.clone(),
        resource: Some(status),
        ..MetricStatus::default()
    };
    Ok(Evaluated { replicas: proposal.replicas, name, status })
}

async fn container(of: &Subject<'_>, spec: &MetricSpec) -> Result<Evaluated, Failure> {
    let source = spec.container_resource.as_ref();
    let inside = source.map_or("", |c| c.container.as_str());
    let story = format!("failed to get {inside} container metric value");
    let failed = failure("FailedGetContainerResourceMetric", &story);
    let source = source.ok_or_else(|| failed(absent()))?;
    let (proposal, current) =
        of_resource(of, &source.name, Some(inside), &source.target).await.map_err(&failed)?;
    let name = match proposal.utilization {
        Some(_) => {
            format!("{} container resource utilization (percentage of request)", source.name)
        }
        None => format!("{} resource", source.name),
    };
    let status = ContainerResourceMetricStatus {
        name: source.name.clone(),
        container: inside.into(),
        current,
    };
    let status = MetricStatus {
        type_: spec.type_.clone(),
        container_resource: Some(status),
        ..MetricStatus::default()
    };
    Ok(Evaluated { replicas: proposal.replicas, name, status })
}

async fn pods(of: &Subject<'_>, spec: &MetricSpec) -> Result<Evaluated, Failure> {
    let failed = failure("FailedGetPodsMetric", "failed to get pods metric value");
    let source = spec.pods.as_ref().ok_or_else(|| failed(absent()))?;
    let metric = &source.metric;
    let selector = metric.selector.as_ref();
    let samples = of.metrics.of_pods(of.namespace, of.selector, &metric.name, selector).await;
    let samples = samples
        .map_err(|error| failed(format!("unable to get metric {}: {error}", metric.name)))?;
    let target = source.target.average_value.as_ref().map_or(0, milli);
    let proposal = of.pods.propose(Target::Average(target), samples).map_err(&failed)?;
    let current = average(proposal.average);
    let status = PodsMetricStatus { metric: metric.clone(), current };
    let status =
        MetricStatus { type_: spec.type_.clone(), pods: Some(status), ..MetricStatus::default() };
    let name = format!("pods metric {}", metric.name);
    Ok(Evaluated { replicas: proposal.replicas, name, status })
}

fn average(milli: i64) -> MetricValueStatus {
    MetricValueStatus { average_value: Some(amount("", milli)), ..MetricValueStatus::default() }
}

fn value(milli: i64) -> MetricValueStatus {
    MetricValueStatus { value: Some(amount("", milli)), ..MetricValueStatus::default() }
}

/// A value for all pods, held against a target for all or for each.
fn held(
    of: &Subject<'_>,
    usage: i64,
    target: &MetricTarget,
) -> Result<Option<(i32, MetricValueStatus)>, String> {
    match (&target.average_value, &target.value) {
        (Some(each), _) => {
            let proposal = of.pods.propose_per_pod(usage, milli(each), of.replicas);
            Ok(Some((proposal.replicas, average(proposal.average))))
        }
        (None, Some(all)) => {
            let proposal = of.pods.propose_for(usage, milli(all))?;
            Ok(Some((proposal.replicas, value(usage))))
        }
        (None, None) => Ok(None),
    }
}

fn shown(metric: &MetricIdentifier) -> String {
    format!("{}({})", metric.name, text(metric.selector.as_ref()))
}

async fn object(of: &Subject<'_>, spec: &MetricSpec) -> Result<Evaluated, Failure> {
    let failed = failure("FailedGetObjectMetric", "failed to get object metric value");
    let source = spec.object.as_ref().ok_or_else(|| failed(absent()))?;
    let (metric, about) = (&source.metric, &source.described_object);
    let resource = of.resource.as_deref().ok_or_else(|| {
        failed(format!(
            "no matches for kind {:?} in version {:?}",
            about.kind,
            about.api_version.as_deref().unwrap_or("")
        ))
    })?;
    let place = (resource, about.name.as_str());
    let selector = metric.selector.as_ref();
    let usage = of.metrics.of_object(of.namespace, place, &metric.name, selector).await;
    let usage = usage.map_err(|error| {
        let (own, space) = (&metric.name, of.namespace);
        failed(format!(
            "unable to get metric {own}: {} on {space} {}/{error}",
            about.kind, about.name
        ))
    })?;
    let (replicas, current) =
        held(of, usage, &source.target).map_err(&failed)?.ok_or_else(|| {
            failed(
                "invalid object metric source: neither a value target nor an average value target \
                was set"
                    .into(),
            )
        })?;
    let name = match source.target.average_value {
        Some(_) => format!("external metric {}", shown(metric)),
        None => format!("{} metric {}", about.kind, metric.name),
    };
    let status =
        ObjectMetricStatus { current, described_object: about.clone(), metric: metric.clone() };
    let status =
        MetricStatus { type_: spec.type_.clone(), object: Some(status), ..MetricStatus::default() };
    Ok(Evaluated { replicas, name, status })
}

async fn external(of: &Subject<'_>, spec: &MetricSpec) -> Result<Evaluated, Failure> {
    let own = spec.external.as_ref().map_or("", |e| e.metric.name.as_str());
    let story = format!("failed to get {own} external metric value");
    let failed = failure("FailedGetExternalMetric", &story);
    let source = spec.external.as_ref().ok_or_else(|| failed(absent()))?;
    let selector = source.metric.selector.as_ref();
    let usage = of.metrics.external(of.namespace, own, selector).await.map_err(|error| {
        let (space, selector) = (of.namespace, text(selector));
        failed(format!("unable to get external metric {space}/{own}/{selector}: {error}"))
    })?;
    let (replicas, current) = held(of, usage, &source.target).map_err(&failed)?.ok_or_else(|| {
        failed("invalid external metric source: neither a value target nor an average value target \
                was set"
            .into())
    })?;
    let status = ExternalMetricStatus { current, metric: source.metric.clone() };
    let status = MetricStatus {
        type_: spec.type_.clone(),
        external: Some(status),
        ..MetricStatus::default()
    };
    let name = format!("external metric {}", shown(&source.metric));
    Ok(Evaluated { replicas, name, status })
}
