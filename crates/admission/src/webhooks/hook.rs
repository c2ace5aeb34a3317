//! One webhook of a configuration, read once.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::review::ReviewVersion;
use super::{Caller, Callers};
use crate::expressions::{Compiler, FailurePolicy, MatchConditions};
use crate::matching::Constraints;

/// The time limit of a webhook that names none.
const TIMEOUT_SECONDS: u64 = 10;

/// A webhook, ready to be asked.
pub struct Hook {
    pub name: Box<str>,
    /// Kind and name of its configuration.
    pub kind: &'static str,
    pub configuration: Box<str>,
    /// Tells it apart from all other hooks of its kind.
    pub(super) id: String,
    pub constraints: Constraints,
    pub(super) conditions: MatchConditions,
    pub(super) failure: FailurePolicy,
    /// A dry run may call it.
    pub(super) has_no_side_effects: bool,
    pub(super) timeout: Duration,
    /// The first of `admissionReviewVersions` that is known.
    pub(super) review: Option<ReviewVersion>,
    /// It is called again when something changes the object after it.
    pub(super) is_reinvoked: bool,
    pub client_config: Value,
    /// The error says why it cannot be called.
    pub(super) caller: Result<Arc<dyn Caller>, String>,
}

impl std::fmt::Debug for Hook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.id)
    }
}

impl Hook {
    /// `nth` counts the hooks of a configuration.
    pub(super) fn read(
        (kind, configuration): (&'static str, &str),
        (nth, webhook): (usize, &Value),
        callers: &dyn Callers,
    ) -> Hook {
        let name = webhook["name"].as_str().unwrap_or("");
        let failure = FailurePolicy::of(&webhook["failurePolicy"]);
        let compiler = Compiler::of_webhook();
        let conditions = &webhook["matchConditions"];
        let seconds = webhook["timeoutSeconds"].as_u64().unwrap_or(TIMEOUT_SECONDS);
        let side_effects = webhook["sideEffects"].as_str().unwrap_or("");
        Hook {
            name: name.into(),
            kind,
            configuration: configuration.into(),
            id: format!("{configuration}/{name}/{nth}"),
            constraints: Constraints::of_webhook(webhook),
            conditions: MatchConditions::compile(conditions, failure, &compiler),
            failure,
            has_no_side_effects: matches!(side_effects, "None" | "NoneOnDryRun"),
            timeout: Duration::from_secs(seconds),
            review: ReviewVersion::choose(&webhook["admissionReviewVersions"]),
            is_reinvoked: webhook["reinvocationPolicy"] == "IfNeeded",
            client_config: webhook["clientConfig"].clone(),
            caller: callers.caller(&webhook["clientConfig"]),
        }
    }

    /// Requests pass although the hook cannot be called.
    pub fn fails_open(&self) -> bool {
        self.failure == FailurePolicy::Ignore
    }
}
