//! Mutating webhooks, called one after the other on the object as the last one left it (apiserver
//! `plugin/webhook/mutating`).

use std::sync::Arc;

use api::Status;
use api::patch::apply_json_patch;
use api::registry::Resource;
use serde_json::{Value, json};

use super::call::{self, Failure, InVersion};
use super::hook::Hook;
use super::metrics;
use super::review::Answer;
use crate::attributes::Attributes;
use crate::plugin::Verdict;

pub(super) const PLUGIN: &str = "MutatingAdmissionWebhook";
const PATCHED: &str = "patch.webhook.admission.k8s.io/";
const MUTATED: &str = "mutation.webhook.admission.k8s.io/";

/// The object of a request, in the version that the last hook wanted.
struct Versioned<'r, 'a> {
    request: &'r Attributes<'a>,
    row: &'a Resource,
    object: &'r mut Value,
    /// The state before, in the version of `row`.
    old: Value,
    is_changed: bool,
}

impl<'a> Versioned<'_, 'a> {
    async fn become_version(&mut self, row: &'a Resource) -> Result<(), Status> {
        if (row.group, row.version) == (self.row.group, self.row.version) {
            return Ok(());
        }
        let versions = self.request.versions;
        for object in [&mut *self.object, &mut self.old] {
            let converted = versions.convert(object.take(), self.row, row).await;
            *object = converted.map_err(internal)?;
        }
        self.row = row;
        Ok(())
    }

    fn shown(&self) -> InVersion<'_> {
        InVersion { row: self.row, object: self.object, old: &self.old }
    }

    /// The object in the request's own version, with what its schema knows.
    async fn finish(mut self) -> Result<(), Status> {
        self.become_version(self.request.row).await?;
        if self.is_changed {
            *self.object = self.request.versions.pruned(self.object.take()).map_err(internal)?;
        }
        Ok(())
    }
}

fn internal(status: Status) -> Status {
    Status::internal(status.message)
}

/// The request through all hooks.
pub(super) async fn dispatch(
    hooks: &[Arc<Hook>],
    request: &Attributes<'_>,
    object: &mut Value,
) -> Verdict {
    request.reinvocation.begin(PLUGIN, object);
    let old = request.old.cloned().unwrap_or(Value::Null);
    let mut versioned = Versioned { request, row: request.row, object, old, is_changed: false };
    for (index, hook) in hooks.iter().enumerate() {
        run(hook, index, &mut versioned).await?;
    }
    let output = versioned.finish().await;
    request.reinvocation.end(PLUGIN, object);
    output
}

async fn run(hook: &Hook, index: usize, versioned: &mut Versioned<'_, '_>) -> Verdict {
    let request = versioned.request;
    let Some(row) = hook.constraints.matches(request, versioned.object)? else { return Ok(()) };
    if !hook.conditions.is_empty() {
        versioned.become_version(row).await?;
        if !call::meets_conditions(hook, request, &versioned.shown()).await? {
            return Ok(());
        }
    }
    if !request.reinvocation.should_run(PLUGIN, &hook.id) {
        return Ok(());
    }
    versioned.become_version(row).await?;
    let place = format!("round_{}_index_{index}", request.reinvocation.round());
    let begun = std::time::Instant::now();
    let changed = ask(hook, &place, versioned).await;
    metrics::called(hook, (request, true), begun, &changed);
    annotate_mutation(hook, request, &place, matches!(changed, Ok(true)));
    if matches!(changed, Ok(true)) {
        request.reinvocation.changed(PLUGIN);
    }
    if hook.is_reinvoked {
        request.reinvocation.reinvoke_if_changed(PLUGIN, &hook.id);
    }
    let key = format!("failed-open.{MUTATED}{place}");
    let about = (request, &*versioned.object);
    changed.map(drop).or_else(|failure| call::after_failure(hook, about, failure, &key))
}

/// Whether the hook changed the object.
async fn ask(hook: &Hook, place: &str, versioned: &mut Versioned<'_, '_>) -> Result<bool, Failure> {
    let answer = call::call(hook, versioned.request, versioned.shown(), true).await?;
    let Some(patch) = operations(&answer)? else { return Ok(false) };
    if versioned.object.is_null() {
        return Err(Status::internal(format!(
            "admission webhook {:?} attempted to modify the object, which is not supported for this operation",
            hook.name
        ))
        .into());
    }
    if answer.patch_type != "JSONPatch" {
        return Err(Failure::Calling(format!("unsupported patch type {:?}", answer.patch_type)));
    }
    let mut tree = versioned.object.clone();
    apply_json_patch(&mut tree, &patch).map_err(Status::internal)?;
    let new = versioned.request.versions.patched(versioned.row, tree, false).map_err(internal)?;
    let changed = new != *versioned.object;
    let value = format!(
        "{{\"configuration\":{},\"webhook\":{},\"patch\":{patch},\"patchType\":\"JSONPatch\"}}",
        json!(hook.configuration),
        json!(hook.name)
    );
    (versioned.request.annotate)(&format!("{PATCHED}{place}"), value);
    *versioned.object = new;
    versioned.is_changed = true;
    Ok(changed)
}

/// The operations of an answer's patch; none where it changes nothing.
fn operations(answer: &Answer) -> Result<Option<Value>, Failure> {
    if answer.patch.is_empty() {
        return Ok(None);
    }
    let undecodable = |why: String| {
        Failure::Calling(format!("received undecodable patch in webhook response: {why}"))
    };
    let patch: Value = serde_json::from_slice(&answer.patch).map_err(|e| {
        undecodable(validation::go_syntax_fault(&answer.patch).unwrap_or_else(|| e.to_string()))
    })?;
    match &patch {
        Value::Null => Ok(None),
        Value::Array(list) if list.is_empty() => Ok(None),
        Value::Array(list) if list.iter().all(|item| item.is_object() || item.is_null()) => {
            Ok(Some(patch))
        }
        _ => Err(undecodable("json: cannot unmarshal into a list of operations".into())),
    }
}

fn annotate_mutation(hook: &Hook, request: &Attributes<'_>, place: &str, mutated: bool) {
    let value = format!(
        "{{\"configuration\":{},\"webhook\":{},\"mutated\":{mutated}}}",
        json!(hook.configuration),
        json!(hook.name)
    );
    (request.annotate)(&format!("{MUTATED}{place}"), value);
}
