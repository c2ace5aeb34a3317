//! The metrics APIs, read as what they are: JSON of `metrics.k8s.io`, `custom.metrics.k8s.io` and
//! `external.metrics.k8s.io`, whoever serves them.

use api::quantity::Quantity;
use bytes::Bytes;
use client::{Client, Error, percent_encode};
use http::Method;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::Value;

use super::replicas::{Sample, Samples};

/// The window of a metric that does not say.
const WINDOW: SignedDuration = SignedDuration::from_mins(1);

#[derive(Clone)]
pub(crate) struct Metrics {
    pub(crate) client: Client,
}

/// Values above this many are not read: one namespace has no more pods.
const ITEMS_MAX: usize = 200_000;

impl Metrics {
    async fn items(&self, target: String, api: &str) -> Result<Vec<Value>, String> {
        let sent: Result<Value, Error> =
            self.client.send(Method::GET, target, None, Bytes::new()).await;
        let mut list = sent
            .map_err(|error| format!("unable to fetch metrics from {api} metrics API: {error}"))?;
        match list["items"].take() {
            Value::Array(items) if !items.is_empty() && items.len() <= ITEMS_MAX => Ok(items),
            _ => Err(format!("no metrics returned from {api} metrics API")),
        }
    }

    /// A resource of pods, or of one container in each.
    pub(crate) async fn resource(
        &self,
        namespace: &str,
        selector: &str,
        resource: &str,
        container: Option<&str>,
    ) -> Result<Samples, String> {
        let selector = percent_encode(selector);
        let target = format!(
            "/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods?labelSelector={selector}"
        );
        let mut samples = Samples::new();
        for item in self.items(target, "resource").await? {
            let pod = item["metadata"]["name"].as_str().unwrap_or("").to_owned();
            let containers = item["containers"].as_array().cloned().unwrap_or_default();
            let wanted: Vec<&Value> = containers
                .iter()
                .filter(|c| container.is_none_or(|name| c["name"] == name))
                .collect();
            if let Some(container) = container.filter(|_| wanted.is_empty()) {
                return Err(format!(
                    "container {container} not present in metrics for pod {namespace}/{pod}"
                ));
            }
            let values: Option<Vec<i64>> =
                wanted.iter().map(|c| milli(&c["usage"][resource])).collect();
            // A pod of which one container says nothing has no value.
            if let Some(values) = values.filter(|values| !values.is_empty()) {
                samples.insert(pod, sample(&item, values.iter().sum(), window(&item["window"])));
            }
        }
        Ok(samples)
    }

    /// A metric of each pod.
    pub(crate) async fn of_pods(
        &self,
        namespace: &str,
        selector: &str,
        metric: &str,
        metric_selector: Option<&LabelSelector>,
    ) -> Result<Samples, String> {
        let target = format!(
            "/apis/custom.metrics.k8s.io/v1beta2/namespaces/{namespace}/pods/*/{}?labelSelector={}\
             &metricLabelSelector={}",
            percent_encode(metric),
            percent_encode(selector),
            percent_encode(&text(metric_selector)),
        );
        let items = self.items(target, "custom").await?;
        let pods = items.iter().filter_map(|item| {
            let pod = item["describedObject"]["name"].as_str()?.to_owned();
            let seconds = item["windowSeconds"].as_i64().map(SignedDuration::from_secs);
            Some((pod, sample(item, milli(&item["value"])?, seconds)))
        });
        Ok(pods.collect())
    }

    /// A metric of one object; `resource` is its plural with the group.
    pub(crate) async fn of_object(
        &self,
        namespace: &str,
        (resource, name): (&str, &str),
        metric: &str,
        metric_selector: Option<&LabelSelector>,
    ) -> Result<i64, String> {
        let place = match resource {
            "namespaces" => "metrics".to_owned(),
            _ => format!("{resource}/{}", percent_encode(name)),
        };
        let target = format!(
            "/apis/custom.metrics.k8s.io/v1beta2/namespaces/{namespace}/{place}/{}\
             ?metricLabelSelector={}",
            percent_encode(metric),
            percent_encode(&text(metric_selector)),
        );
        let items = self.items(target, "custom").await?;
        milli(&items[0]["value"]).ok_or_else(|| "the metric's value is no quantity".to_owned())
    }

    /// The sum of an external metric's values.
    pub(crate) async fn external(
        &self,
        namespace: &str,
        metric: &str,
        selector: Option<&LabelSelector>,
    ) -> Result<i64, String> {
        let target = format!(
            "/apis/external.metrics.k8s.io/v1beta1/namespaces/{namespace}/{}?labelSelector={}",
            percent_encode(metric),
            percent_encode(&text(selector)),
        );
        let items = self.items(target, "external").await?;
        let values = items.iter().filter_map(|item| milli(&item["value"]));
        Ok(values.fold(0, i64::saturating_add))
    }
}

fn milli(value: &Value) -> Option<i64> {
    Quantity::parse(value.as_str()?).ok().map(|q| q.milli_value())
}

fn window(value: &Value) -> Option<SignedDuration> {
    let parsed = api::duration::parse(value.as_str()?).ok()?;
    SignedDuration::try_from(parsed.length).ok()
}

fn sample(item: &Value, value: i64, window: Option<SignedDuration>) -> Sample {
    let at = item["timestamp"].as_str().and_then(|t| t.parse().ok());
    Sample { value, at: at.unwrap_or(Timestamp::UNIX_EPOCH), window: window.unwrap_or(WINDOW) }
}

/// The selector as queries have it.
pub(crate) fn text(selector: Option<&LabelSelector>) -> String {
    let Some(selector) = selector else { return String::new() };
    let labels = selector.match_labels.iter().flatten().map(|(k, v)| format!("{k}={v}"));
    let expressions = selector.match_expressions.iter().flatten().map(|e| {
        let values = e.values.clone().unwrap_or_default().join(",");
        match e.operator.as_str() {
            "In" => format!("{} in ({values})", e.key),
            "NotIn" => format!("{} notin ({values})", e.key),
            "DoesNotExist" => format!("!{}", e.key),
            _ => e.key.clone(),
        }
    });
    labels.chain(expressions).collect::<Vec<_>>().join(",")
}
