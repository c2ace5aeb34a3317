//! ImagePolicyWebhook: a webhook decides which images run.
//!
//! Rule: `plugin/pkg/admission/imagepolicy`.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::time::Instant;
use validation::items;

use crate::attributes::{Attributes, Operation};
use crate::lru::Lru;
use crate::plugin::{Decision, Plugin, Verdict};
use crate::webhooks::{CallFailure, Caller};

/// Answers that are remembered.
const CACHE: usize = 1024;
/// Longest wait for an answer.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Tries while the webhook says that it cannot answer now, each pause half as long again as the last.
const TRIES: usize = 5;
const AUDIT: &str = "imagepolicywebhook.image-policy.k8s.io/";

/// How long answers count, and what happens without one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) kubeconfig: String,
    allow_for: Duration,
    deny_for: Duration,
    pause: Duration,
    allows_by_default: bool,
}

impl Settings {
    /// Of the plugin's configuration, which must be there.
    pub(crate) fn read(configuration: &Value) -> Result<Settings, String> {
        if configuration.is_null() {
            return Err("no config specified".into());
        }
        let own = &configuration["imagePolicy"];
        let seconds = |key: &str, usual: u64, least: u64, most: u64| {
            duration(&own[key], 1000, usual * 1000, (least * 1000, most * 1000))
        };
        Ok(Settings {
            kubeconfig: own["kubeConfigFile"].as_str().unwrap_or("").to_owned(),
            allow_for: seconds("allowTTL", 300, 1, 1800)?,
            deny_for: seconds("denyTTL", 30, 1, 1800)?,
            pause: duration(&own["retryBackoff"], 1, 500, (1, 300_000))?,
            allows_by_default: own["defaultAllow"] == true,
        })
    }
}

/// A number in units of so many milliseconds: -1 is none, 0 the usual.
fn duration(
    value: &Value,
    unit: u64,
    usual: u64,
    (least, most): (u64, u64),
) -> Result<Duration, String> {
    let number = value.as_i64().unwrap_or(0);
    let millis = match number {
        -1 => return Ok(Duration::ZERO),
        0 => return Ok(Duration::from_millis(usual)),
        number => u64::try_from(number).unwrap_or(0).saturating_mul(unit),
    };
    let shown = |millis: u64| format!("{:?}", Duration::from_millis(millis));
    match (least..=most).contains(&millis) {
        true => Ok(Duration::from_millis(millis)),
        false => Err(format!(
            "valid value is between {} and {}, got {}",
            shown(least),
            shown(most),
            shown(millis)
        )),
    }
}

/// An answer and when it ends; null before there is one.
type Remembered = (Value, Instant);

pub(crate) struct ImagePolicyWebhook {
    settings: Settings,
    caller: Arc<dyn Caller>,
    answers: Mutex<Lru<Remembered>>,
}

impl ImagePolicyWebhook {
    pub(crate) fn new(settings: Settings, caller: Arc<dyn Caller>) -> ImagePolicyWebhook {
        ImagePolicyWebhook { settings, caller, answers: Mutex::new(Lru::new(CACHE)) }
    }

    async fn check(&self, request: &Attributes<'_>, pod: &Value) -> Verdict {
        let spec = question(request, pod);
        let key = spec.to_string();
        let status = match self.remembered(&key) {
            Some(status) => status,
            None => match self.ask(&spec).await {
                Ok(status) => self.remember(&key, status),
                Err(_) if self.settings.allows_by_default => {
                    (request.annotate)(&format!("{AUDIT}failed-open"), "true".into());
                    return Ok(());
                }
                Err(failure) => return Err(request.forbid(pod, &failure.message)),
            },
        };
        for (key, value) in status["auditAnnotations"].as_object().into_iter().flatten() {
            let value = value.as_str().unwrap_or("").to_owned();
            (request.annotate)(&format!("{AUDIT}{key}"), value);
        }
        if status["allowed"] == true {
            return Ok(());
        }
        let why = match status["reason"].as_str().unwrap_or("") {
            "" => "one or more images rejected by webhook backend".to_owned(),
            reason => format!("image policy webhook backend denied one or more images: {reason}"),
        };
        Err(request.forbid(pod, &why))
    }

    fn remembered(&self, key: &str) -> Option<Value> {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let (status, end) = answers.entry(key, || (Value::Null, Instant::now()));
        (Instant::now() < *end).then(|| status.clone())
    }

    fn remember(&self, key: &str, status: Value) -> Value {
        let time = match status["allowed"] == true {
            true => self.settings.allow_for,
            false => self.settings.deny_for,
        };
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = answers.entry(key, || (Value::Null, Instant::now()));
        *entry = (status.clone(), Instant::now() + time);
        status
    }

    /// The status of the review, asked again while the webhook is not well.
    async fn ask(&self, spec: &Value) -> Result<Value, CallFailure> {
        let review = json!({"kind": "ImageReview", "apiVersion": "imagepolicy.k8s.io/v1alpha1",
            "metadata": {}, "spec": spec, "status": {"allowed": false}});
        let mut pause = self.settings.pause;
        for _ in 1..TRIES {
            match self.caller.call(&review, TIMEOUT).await {
                Err(failure) if failure.is_passing() => tokio::time::sleep(pause).await,
                other => return other.map(|mut answer| answer["status"].take()),
            }
            pause = pause * 3 / 2;
        }
        self.caller.call(&review, TIMEOUT).await.map(|mut answer| answer["status"].take())
    }
}

/// The images of a pod, and what its annotations say to the webhook.
fn question(request: &Attributes<'_>, pod: &Value) -> Value {
    let lists: &[&str] = match request.row.subresource {
        "" => &["containers", "initContainers"],
        _ => &["ephemeralContainers"],
    };
    let containers = lists.iter().flat_map(|list| items(&pod["spec"], list));
    let containers: Vec<Value> = containers.map(|c| json!({"image": c["image"]})).collect();
    let annotations = pod["metadata"]["annotations"].as_object().into_iter().flatten();
    let annotations: Map<String, Value> = annotations
        .filter(|(key, _)| key.contains(".image-policy.k8s.io/"))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let mut spec = json!({"containers": containers, "namespace": request.namespace()});
    if !annotations.is_empty() {
        spec["annotations"] = annotations.into();
    }
    spec
}

impl Plugin for ImagePolicyWebhook {
    fn name(&self) -> &'static str {
        "ImagePolicyWebhook"
    }

    fn handles(&self, request: &Attributes<'_>) -> bool {
        let writes = matches!(request.operation, Operation::Create | Operation::Update);
        writes && matches!(request.path(), ("", "pods", "" | "ephemeralcontainers"))
    }

    fn validate<'a>(&'a self, request: &'a Attributes<'a>, pod: &'a Value) -> Decision<'a> {
        Decision::Later(Box::pin(self.check(request, pod)))
    }
}
