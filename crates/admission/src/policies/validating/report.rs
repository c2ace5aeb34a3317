//! What decisions become: the refusal, warnings, and audit annotations.

use std::collections::BTreeMap;

use api::Status;
use api::status::Cause;
use serde_json::{Value, json};

use std::time::Duration;

use super::evaluate::{Annotation, Decision, Outcome};
use crate::attributes::Attributes;
use crate::expressions::FailurePolicy;
use crate::policies::binding::{Action, Binding};
use crate::policies::figures::{self, Enforcement};

/// The longest value of an audit annotation, in bytes.
const ANNOTATION_MAX: usize = 10 * 1024;
const FAILURE_ANNOTATION: &str = "validation.policy.admission.k8s.io/validation_failure";

/// A reason to refuse the request.
struct Denial {
    message: String,
    reason: Box<str>,
}

/// Collects what the policies say to one request. The first denial is the answer.
#[derive(Default)]
pub(super) struct Report {
    denial: Option<Denial>,
}

impl Report {
    fn deny(&mut self, policy: &str, binding: Option<&str>, message: &str, reason: &str) {
        let binding = binding.map(|name| format!(" with binding '{name}'")).unwrap_or_default();
        let message =
            format!("ValidatingAdmissionPolicy '{policy}'{binding} denied request: {message}");
        let reason = if reason.is_empty() { "Invalid" } else { reason };
        self.denial.get_or_insert(Denial { message, reason: reason.into() });
    }

    /// The policy, or with a binding the binding, cannot be evaluated as it is configured.
    pub(super) fn misconfigured(
        &mut self,
        policy: &str,
        failure: FailurePolicy,
        binding: Option<&str>,
        why: &str,
    ) {
        if failure == FailurePolicy::Fail {
            let what = if binding.is_some() { "binding" } else { "policy" };
            self.deny(policy, binding, &format!("failed to configure {what}: {why}"), "");
        }
    }

    pub(super) fn decided(
        &mut self,
        request: &Attributes<'_>,
        policy: &str,
        binding: &Binding,
        outcome: &Outcome,
    ) {
        let checked = |enforcement, message: &str, took| {
            figures::checked((policy, &binding.name), enforcement, message, took);
        };
        for (at, (decision, took)) in outcome.decisions.iter().enumerate() {
            let (message, reason) = match decision {
                Decision::Admit => continue,
                Decision::Ignored { message } => {
                    checked(Enforcement::Allow, message, *took);
                    continue;
                }
                Decision::Deny { message, reason } => (message, reason),
            };
            for action in &binding.actions {
                checked(Enforcement::of(*action), message, *took);
                match action {
                    Action::Deny => self.deny(policy, Some(&binding.name), message, reason),
                    Action::Warn => (request.warn)(format!(
                        "Validation failed for ValidatingAdmissionPolicy '{policy}' with binding '{}': {message}",
                        binding.name
                    )),
                    Action::Audit => {
                        let value = failure_value(policy, binding, (at, message)).to_string();
                        (request.annotate)(FAILURE_ANNOTATION, value);
                    }
                }
            }
        }
        for annotation in &outcome.annotations {
            if let Annotation::Failed(why) = annotation {
                checked(Enforcement::Deny, why, Duration::ZERO);
                self.deny(policy, Some(&binding.name), why, "");
            }
        }
    }

    /// The answer for the client.
    pub(super) fn verdict(self, request: &Attributes<'_>, object: &Value) -> Result<(), Status> {
        let Some(Denial { message, reason }) = self.denial else { return Ok(()) };
        let mut status = request.forbid(object, &message);
        status.code = match &*reason {
            "Forbidden" => 403,
            "Unauthorized" => 401,
            "RequestEntityTooLarge" => 413,
            _ => 422,
        };
        status.reason = reason.into_string();
        let cause = Cause { reason: "".into(), message, field: String::new() };
        Err(status.with_causes(vec![cause]))
    }
}

fn failure_value(policy: &str, binding: &Binding, (at, message): (usize, &str)) -> Value {
    let actions: Vec<&str> = binding.actions.iter().map(|action| action.name()).collect();
    json!([{
        "message": message,
        "policy": policy,
        "binding": &*binding.name,
        "expressionIndex": at,
        "validationActions": actions,
    }])
}

/// The audit annotations of one policy: values that bindings and parameters give to one key are joined.
#[derive(Default)]
pub(super) struct Annotations(BTreeMap<Box<str>, Vec<String>>);

impl Annotations {
    pub(super) fn add(&mut self, outcome: &Outcome) {
        for annotation in &outcome.annotations {
            let Annotation::Publish { key, value } = annotation else { continue };
            let mut value = value.clone();
            value.truncate(value.floor_char_boundary(ANNOTATION_MAX));
            let values = self.0.entry(key.clone()).or_default();
            if !values.contains(&value) {
                values.push(value);
            }
        }
    }

    pub(super) fn publish(self, request: &Attributes<'_>, policy: &str) {
        for (key, values) in self.0 {
            (request.annotate)(&format!("{policy}/{key}"), values.join(", "));
        }
    }
}
