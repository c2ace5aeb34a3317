//! The call of one hook: what keeps it from being called, and what its failures mean.

use std::time::Duration;

use api::Status;
use api::registry::Resource;
use serde_json::Value;
use traces::{Kind, Span};

use super::hook::Hook;
use super::lockout;
use super::review::{Answer, Unusable, answer, question, refusal};
use crate::attributes::{Attributes, Operation};
use crate::expressions::{Inputs, Matched, RequestAuthorizer, admission_request};

/// Why a hook did not let the request pass.
#[derive(Debug)]
pub(super) enum Failure {
    /// It could not be asked, or gave no proper answer: the failure policy decides.
    Calling(String),
    /// The webhook's answer refuses the request.
    Rejected(Box<Status>),
    /// The request is refused for another reason.
    Refused(Box<Status>),
}

impl From<Status> for Failure {
    fn from(status: Status) -> Failure {
        Failure::Refused(Box::new(status))
    }
}

/// An object before and after the request, in the version of a row.
pub(super) struct InVersion<'v> {
    pub(super) row: &'v Resource,
    pub(super) object: &'v Value,
    pub(super) old: &'v Value,
}

/// Whether the match conditions of a hook hold.
pub(super) async fn meets_conditions(
    hook: &Hook,
    request: &Attributes<'_>,
    shown: &InVersion<'_>,
) -> Result<bool, Status> {
    if hook.conditions.is_empty() {
        return Ok(true);
    }
    let asked = admission_request(request, shown.row);
    let authorizer = RequestAuthorizer::new(request);
    let present = |value: &'_ Value| !value.is_null();
    let inputs = Inputs {
        object: Some(shown.object).filter(|value| present(value)),
        old_object: Some(shown.old).filter(|value| present(value)),
        request: &asked,
        params: None,
        namespace: None,
        authorizer: Some(&authorizer),
    };
    match authorizer.settle(|| hook.conditions.matches(&inputs, &[])).await {
        Matched::Yes => Ok(true),
        Matched::No(_) => Ok(false),
        Matched::Failed(why) => Err(request.forbid(shown.object, &why)),
    }
}

/// Asks a hook. An answer that refuses the request is a failure; warnings and annotations are passed on in any
/// case.
pub(super) async fn call(
    hook: &Hook,
    request: &Attributes<'_>,
    shown: InVersion<'_>,
    is_mutating: bool,
) -> Result<Answer, Failure> {
    if request.dry_run && !hook.has_no_side_effects {
        let why = format!("admission webhook {:?} does not support dry run", hook.name);
        return Err(Status::bad_request(why).into());
    }
    let Some(version) = hook.review else {
        let why = "could not create admission objects: webhook does not accept known AdmissionReview versions (v1, v1beta1)";
        return Err(Failure::Calling(why.into()));
    };
    let caller = hook.caller.as_ref();
    let caller =
        caller.map_err(|why| Failure::Calling(format!("could not get REST client: {why}")))?;
    let uid = uuid::Uuid::new_v4().to_string();
    let review = question(version, &uid, (request, shown.row), (shown.object, shown.old));
    let span = span(hook, request, &uid, is_mutating);
    let called =
        traces::within(span.as_ref(), caller.call(&review, time_limit(hook, request))).await;
    drop(span);
    let failed = |why: &str| Failure::Calling(format!("failed to call webhook: {why}"));
    let review = called.map_err(|failure| failed(&failure.message))?;
    let answer =
        answer(version, &uid, is_mutating, &review).map_err(|unusable| match unusable {
            Unusable::Undecodable(why) => failed(&why),
            Unusable::Invalid(why) => {
                Failure::Calling(format!("received invalid webhook response: {why}"))
            }
        })?;
    pass_on(hook, request, &answer);
    match answer.is_allowed {
        true => Ok(answer),
        false => Err(Failure::Rejected(Box::new(refusal(&hook.name, &answer.result)))),
    }
}

/// The call's span, if the request has one (`callHook` of upstream's dispatchers).
fn span(hook: &Hook, request: &Attributes<'_>, uid: &str, is_mutating: bool) -> Option<Span> {
    let name = if is_mutating { "Call mutating webhook" } else { "Call validating webhook" };
    let mut span = traces::start(name, Kind::Client)?;
    let row = request.row;
    let resource = match row.group {
        "" => format!("/{}, Resource={}", row.version, row.name),
        group => format!("{group}/{}, Resource={}", row.version, row.name),
    };
    span.set("configuration", &*hook.configuration);
    span.set("webhook", &*hook.name);
    span.set("resource", resource);
    span.set("subresource", row.subresource);
    span.set("operation", request.operation.name());
    span.set("UID", uid);
    Some(span)
}

/// The hook's own limit, within the time that is left for the request.
fn time_limit(hook: &Hook, request: &Attributes<'_>) -> Duration {
    let left = request.deadline.map(|at| at.saturating_duration_since(tokio::time::Instant::now()));
    left.map_or(hook.timeout, |left| left.min(hook.timeout))
}

fn pass_on(hook: &Hook, request: &Attributes<'_>, answer: &Answer) {
    for (key, value) in &answer.annotations {
        // A key is a prefix and a name; upstream drops others.
        match key.contains('/') || key.is_empty() {
            true => {
                tracing::warn!(webhook = &*hook.name, key, "audit annotation has no proper key")
            }
            false => (request.annotate)(&format!("{}/{key}", hook.name), value.clone()),
        }
    }
    for warning in answer.warnings.iter().filter(|warning| !warning.is_empty()) {
        (request.warn)(warning.clone());
    }
}

/// A call that failed: passed over (and annotated) if the hook fails open, refused otherwise.
pub(super) fn after_failure(
    hook: &Hook,
    (request, object): (&Attributes<'_>, &Value),
    failure: Failure,
    failed_open_key: &str,
) -> Result<(), Status> {
    let why = match failure {
        Failure::Rejected(status) | Failure::Refused(status) => return Err(*status),
        Failure::Calling(why) => format!("failed calling webhook {:?}: {why}", hook.name),
    };
    if !hook.fails_open() {
        tracing::warn!(webhook = &*hook.name, why, "a webhook cannot be called; request refused");
        tell_lockout(hook, request, object);
        return Err(Status::internal(why));
    }
    tracing::warn!(webhook = &*hook.name, why, "a webhook cannot be called; request passes");
    (request.annotate)(failed_open_key, hook.name.to_string());
    Ok(())
}

/// Tells client and configuration when a hook that cannot be called refuses a pod that would serve it.
fn tell_lockout(hook: &Hook, request: &Attributes<'_>, pod: &Value) {
    let Some((namespace, service)) = lockout::service_of(&hook.client_config) else { return };
    let is_new_pod = request.operation == Operation::Create && request.path() == ("", "pods", "");
    if !is_new_pod || request.namespace() != namespace {
        return;
    }
    let stored = request.read(("", "v1", "services"), &format!("{namespace}/{service}"));
    if stored.is_some_and(|stored| lockout::serves(pod, &stored)) {
        let place = (namespace, service);
        let advice = lockout::advice(hook.kind, &hook.configuration, &hook.name, place);
        request.cluster.report((hook.kind, &hook.configuration), "WebhookLockout", &advice);
        (request.warn)(advice);
    }
}
