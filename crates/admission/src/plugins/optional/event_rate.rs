//! EventRateLimit: so many events a second, in all, of a namespace, of a user, or about an object.
//!
//! Rule: `plugin/pkg/admission/eventratelimit`.

use std::sync::{Mutex, PoisonError};

use api::Status;
use serde_json::Value;
use tokio::time::Instant;
use validation::items;

use crate::attributes::{Attributes, Operation};
use crate::lru::Lru;
use crate::plugin::{Decision, Plugin, Verdict};

/// Buckets that a limit keeps if it does not say how many.
const CACHE: usize = 4096;

/// What a limit counts by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Server,
    Namespace,
    User,
    SourceAndObject,
}

impl By {
    fn name(self) -> &'static str {
        match self {
            By::Server => "Server",
            By::Namespace => "Namespace",
            By::User => "User",
            By::SourceAndObject => "SourceAndObject",
        }
    }

    fn key(self, request: &Attributes<'_>, event: &Value) -> String {
        match self {
            By::Server => String::new(),
            By::Namespace => request.namespace().to_owned(),
            By::User => request.user.name.clone(),
            By::SourceAndObject => {
                let (source, object) = (&event["source"], &event["involvedObject"]);
                let of_source = ["component", "host"].map(|key| &source[key]);
                let of_object =
                    ["kind", "namespace", "name", "uid", "apiVersion"].map(|key| &object[key]);
                of_source.into_iter().chain(of_object).filter_map(Value::as_str).collect()
            }
        }
    }
}

/// A token bucket.
#[derive(Debug)]
struct Bucket {
    tokens: f64,
    filled: Instant,
}

#[derive(Debug)]
struct Limit {
    by: By,
    per_second: f64,
    burst: f64,
    buckets: Mutex<Lru<Bucket>>,
}

impl Limit {
    fn read(at: usize, limit: &Value) -> Result<Limit, String> {
        let invalid = |key: &str, value: &Value, why: &str| {
            Err(format!("limits[{at}].{key}: Invalid value: {value}: {why}"))
        };
        let by = match limit["type"].as_str().unwrap_or("") {
            "Server" => By::Server,
            "Namespace" => By::Namespace,
            "User" => By::User,
            "SourceAndObject" => By::SourceAndObject,
            other => {
                return Err(format!(
                    "limits[{at}].type: Unsupported value: {other:?}: supported values: \"Namespace\", \"Server\", \"SourceAndObject\", \"User\""
                ));
            }
        };
        let number = |key: &str| limit[key].as_i64().unwrap_or(0);
        for key in ["burst", "qps"] {
            if number(key) <= 0 {
                return invalid(key, &number(key).into(), "must be positive");
            }
        }
        if by != By::Server && number("cacheSize") < 0 {
            return invalid("cacheSize", &limit["cacheSize"], "must not be negative");
        }
        let capacity = usize::try_from(number("cacheSize")).ok().filter(|size| *size > 0);
        let buckets = Mutex::new(Lru::new(capacity.unwrap_or(CACHE)));
        let (per_second, burst) = (number("qps") as f64, number("burst") as f64);
        Ok(Limit { by, per_second, burst, buckets })
    }

    fn accept(&self, request: &Attributes<'_>, event: &Value) -> Result<(), String> {
        let (key, now) = (self.by.key(request, event), Instant::now());
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = buckets.entry(&key, || Bucket { tokens: self.burst, filled: now });
        let gained = now.duration_since(bucket.filled).as_secs_f64() * self.per_second;
        (bucket.tokens, bucket.filled) = ((bucket.tokens + gained).min(self.burst), now);
        if bucket.tokens < 1.0 {
            return Err(format!("limit reached on type {} for key {key}", self.by.name()));
        }
        bucket.tokens -= 1.0;
        Ok(())
    }
}

pub(crate) struct EventRateLimit {
    limits: Vec<Limit>,
}

impl EventRateLimit {
    /// Of the plugin's configuration (`eventratelimit.admission.k8s.io/v1alpha1`), which must have limits.
    pub(crate) fn read(configuration: &Value) -> Result<EventRateLimit, String> {
        let limits = items(configuration, "limits").enumerate();
        let limits: Vec<Limit> =
            limits.map(|(at, limit)| Limit::read(at, limit)).collect::<Result<_, _>>()?;
        match limits.is_empty() {
            true => Err("limits: Invalid value: null: must not be empty".into()),
            false => Ok(EventRateLimit { limits }),
        }
    }

    fn check(&self, request: &Attributes<'_>, event: &Value) -> Verdict {
        let asked = self.limits.iter().map(|limit| limit.accept(request, event));
        let reached: Vec<String> = asked.filter_map(Result::err).collect();
        let why = match reached.as_slice() {
            [] => return Ok(()),
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        Err(Status::failure(429, "TooManyRequests", format!("Too many requests: {why}")))
    }
}

impl Plugin for EventRateLimit {
    fn name(&self) -> &'static str {
        "EventRateLimit"
    }

    fn handles(&self, request: &Attributes<'_>) -> bool {
        let writes = matches!(request.operation, Operation::Create | Operation::Update);
        writes && (request.row.group, request.row.kind) == ("", "Event") && !request.dry_run
    }

    fn validate<'a>(&'a self, request: &'a Attributes<'a>, event: &'a Value) -> Decision<'a> {
        self.check(request, event).into()
    }
}
