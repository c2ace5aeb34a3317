//! A request on its way through all mutating policies (apiserver `policy/generic/policy_dispatcher.go`,
//! `policy/mutating/dispatcher.go`).

use std::sync::Arc;
use std::time::Instant;

use api::Status;
use api::registry::Resource;
use api::status::Cause;
use serde_json::Value;

use super::patch::{Refused, patched};
use super::{Mutations, PLUGIN};
use crate::attributes::Attributes;
use crate::expressions::{FailurePolicy, Inputs, Matched, RequestAuthorizer, admission_request};
use crate::plugin::Verdict;
use crate::policies::binding::Binding;
use crate::policies::figures;
use crate::policies::matched::{Namespace, Versioned, matches};
use crate::policies::policy::Policy;
use crate::policies::snapshot::{Bound, Snapshot};

/// A policy to run with one parameter.
struct Invocation<'s> {
    policy: &'s Policy<Mutations>,
    binding: &'s Binding,
    row: &'s Resource,
    params: Option<Value>,
}

impl Invocation<'_> {
    /// What tells it apart from other invocations, for reinvocation.
    fn key(&self) -> String {
        let meta = self.params.as_ref().map(|params| &params["metadata"]);
        let part = |key: &str| meta.and_then(|meta| meta[key].as_str()).unwrap_or("");
        let (policy, binding) = (&self.policy.name, &self.binding.name);
        format!("{policy} {binding} {}/{}", part("namespace"), part("name"))
    }
}

/// Why policies refuse the request. All are told, the first is the message.
#[derive(Default)]
struct Denials(Vec<(String, &'static str)>);

impl Denials {
    fn add<E>(
        &mut self,
        policy: &Policy<E>,
        binding: Option<&str>,
        (why, reason): (&str, &'static str),
    ) {
        if policy.failure == FailurePolicy::Ignore {
            return;
        }
        let name = &policy.name;
        let text = match binding {
            Some(binding) => {
                format!("policy '{name}' with binding '{binding}' denied request: {why}")
            }
            None => format!("policy {name:?} denied request: {why}"),
        };
        self.0.push((text, reason));
    }

    fn verdict(self, request: &Attributes<'_>, object: &Value) -> Verdict {
        let Some((message, reason)) = self.0.first().cloned() else { return Ok(()) };
        let mut status = request.forbid(object, "admission request denied by policy");
        status.message = message;
        if !reason.is_empty() {
            status.reason = reason.to_owned();
        }
        let cause = |(message, _)| Cause { message, ..Cause::default() };
        Err(status.with_causes(self.0.into_iter().map(cause).collect()))
    }
}

pub(super) async fn dispatch(
    snapshot: Arc<Snapshot>,
    request: &Attributes<'_>,
    object: &mut Value,
) -> Verdict {
    let mut denials = Denials::default();
    let mut invocations = Vec::new();
    for bound in &snapshot.mutating {
        collect(request, object, bound, (&mut invocations, &mut denials)).await;
    }
    if !invocations.is_empty() {
        run_all(request, object, &invocations, &mut denials).await?;
    }
    denials.verdict(request, object)
}

/// Finds the invocations of one policy, by the object as it is before any of them.
async fn collect<'s>(
    request: &Attributes<'s>,
    object: &Value,
    bound: &'s Bound<Mutations>,
    (invocations, denials): (&mut Vec<Invocation<'s>>, &mut Denials),
) {
    let policy = &*bound.policy;
    let of_policy = |why: String| format!("failed to configure policy: {why}");
    let row = match matches(&policy.constraints, request, object) {
        Ok(Some(row)) => row,
        Ok(None) => return,
        Err(why) => return denials.add(policy, None, (&of_policy(why), "")),
    };
    let kind = match policy.param_kind.as_ref().map(|kind| kind.resolve(request)).transpose() {
        Ok(kind) => kind,
        Err(why) => return denials.add(policy, None, (&of_policy(why), "")),
    };
    for binding in &bound.bindings {
        match params(request, object, kind, binding).await {
            Ok(all) => invocations.extend(all.into_iter().map(|params| Invocation {
                policy,
                binding,
                row,
                params,
            })),
            Err(why) => {
                let why = format!("failed to configure binding: {why}");
                denials.add(policy, Some(&binding.name), (&why, ""));
            }
        }
    }
}

/// None if the binding does not match, or has no parameters and allows that.
async fn params(
    request: &Attributes<'_>,
    object: &Value,
    kind: Option<&'static Resource>,
    binding: &Binding,
) -> Result<Vec<Option<Value>>, String> {
    if let Some(resources) = &binding.resources
        && matches(resources, request, object)?.is_none()
    {
        return Ok(Vec::new());
    }
    match (kind, &binding.param_ref) {
        (Some(kind), Some(reference)) => {
            Ok(reference.collect(kind, request).await?.into_iter().map(Some).collect())
        }
        _ => Ok(vec![None]),
    }
}

async fn run_all(
    request: &Attributes<'_>,
    object: &mut Value,
    invocations: &[Invocation<'_>],
    denials: &mut Denials,
) -> Verdict {
    let reinvocation = request.reinvocation;
    reinvocation.begin(PLUGIN, object);
    let namespace = Namespace::of(request)?;
    let authorizer = RequestAuthorizer::new(request);
    let site = Site { request, namespace: &namespace, authorizer: &authorizer };
    let mut patched = false;
    for invocation in invocations {
        let key = invocation.key();
        if !reinvocation.should_run(PLUGIN, &key) {
            continue;
        }
        match site.run(object, invocation, denials).await? {
            Ran::Skipped => continue,
            Ran::Done { patched: one } => patched |= one,
        }
        if invocation.policy.evaluator.reinvoked {
            reinvocation.reinvoke_if_changed(PLUGIN, &key);
        }
    }
    if patched {
        reinvocation.changed(PLUGIN);
    }
    reinvocation.end(PLUGIN, object);
    Ok(())
}

enum Ran {
    /// A match condition does not hold.
    Skipped,
    Done {
        patched: bool,
    },
}

struct Site<'s> {
    request: &'s Attributes<'s>,
    namespace: &'s Namespace,
    authorizer: &'s RequestAuthorizer<'s>,
}

impl Site<'_> {
    /// Runs the mutations in order. One that fails is told, and the next ones run.
    async fn run(
        &self,
        object: &mut Value,
        invocation: &Invocation<'_>,
        denials: &mut Denials,
    ) -> Result<Ran, Status> {
        let (policy, request) = (invocation.policy, self.request);
        let binding = Some(&*invocation.binding.name);
        let (mut current, old) = {
            let converted = Versioned::of(request, object, invocation.row).await;
            let versioned = converted.map_err(|why| Status::internal(&why))?;
            (versioned.object().cloned().unwrap_or_default(), versioned.old().cloned())
        };
        let sent = admission_request(request, invocation.row);
        let inputs = Inputs {
            object: None,
            old_object: old.as_ref(),
            request: &sent,
            params: invocation.params.as_ref(),
            namespace: self.namespace.object(),
            authorizer: Some(self.authorizer),
        };
        let present = Inputs { object: Some(&current), ..inputs };
        let matched = || policy.conditions.matches(&present, &policy.variables);
        match self.authorizer.settle(matched).await {
            Matched::Yes => {}
            Matched::No(_) => return Ok(Ran::Skipped),
            Matched::Failed(why) => {
                denials.add(policy, binding, (&why, "Invalid"));
                return Ok(Ran::Skipped);
            }
        }
        if current.is_null() {
            return Ok(Ran::Done { patched: false });
        }
        let mut patched_any = false;
        for mutation in &policy.evaluator.mutations {
            let inputs = Inputs { object: Some(&current), ..inputs };
            let patched = || patched(request, invocation.row, mutation, &policy.variables, &inputs);
            let begun = Instant::now();
            let outcome = self.authorizer.settle(patched).await;
            let failure = outcome.as_ref().err().map(Refused::message);
            let labels = (&*policy.name, &*invocation.binding.name);
            figures::mutated(labels, failure, begun.elapsed());
            match outcome {
                Ok(new) => (current, patched_any) = (new, true),
                Err(Refused::Status(status)) => return Err(*status),
                Err(Refused::Denied(why)) => denials.add(policy, binding, (&why, "Invalid")),
            }
        }
        if patched_any {
            *object = request.versions.convert(current, invocation.row, request.row).await?;
        }
        Ok(Ran::Done { patched: patched_any })
    }
}
