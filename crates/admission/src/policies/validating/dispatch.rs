//! A request on its way through all validating policies (apiserver `policy/validating/dispatcher.go`).

use std::sync::Arc;

use api::registry::Resource;
use serde_json::Value;

use super::Validations;
use super::evaluate::evaluate;
use super::report::{Annotations, Report};
use crate::attributes::Attributes;
use crate::expressions::{Inputs, RequestAuthorizer, admission_request};
use crate::plugin::Verdict;
use crate::policies::binding::Binding;
use crate::policies::matched::{Namespace, Versioned, matches};
use crate::policies::snapshot::{Bound, Snapshot};

pub(super) async fn dispatch(
    snapshot: Arc<Snapshot>,
    request: &Attributes<'_>,
    object: &Value,
) -> Verdict {
    let authorizer = RequestAuthorizer::new(request);
    let (mut report, mut namespace) = (Report::default(), None);
    for bound in &snapshot.validating {
        let policy = &*bound.policy;
        let row = match matches(&policy.constraints, request, object) {
            Ok(Some(row)) => row,
            Ok(None) => continue,
            Err(why) => {
                report.misconfigured(&policy.name, policy.failure, None, &why);
                continue;
            }
        };
        let site = Site { request, object, row, authorizer: &authorizer };
        site.policy(bound, &mut namespace, &mut report).await?;
    }
    report.verdict(request, object)
}

/// A request and what a policy matched of it.
struct Site<'s> {
    request: &'s Attributes<'s>,
    object: &'s Value,
    /// The row of the version that the policy sees objects in.
    row: &'s Resource,
    authorizer: &'s RequestAuthorizer<'s>,
}

impl Site<'_> {
    /// `namespace` is read when the first policy needs it.
    async fn policy(
        &self,
        bound: &Bound<Validations>,
        namespace: &mut Option<Namespace>,
        report: &mut Report,
    ) -> Verdict {
        let (policy, request) = (&*bound.policy, self.request);
        let kind = match policy.param_kind.as_ref().map(|kind| kind.resolve(request)).transpose() {
            Ok(kind) => kind,
            Err(why) => {
                report.misconfigured(&policy.name, policy.failure, None, &why);
                return Ok(());
            }
        };
        let mut annotations = Annotations::default();
        let (mut versioned, mut sent) = (None, None);
        for binding in &bound.bindings {
            match self.params(kind, binding, &mut versioned).await {
                Ok(None) => {}
                Ok(Some(params)) => {
                    if namespace.is_none() {
                        *namespace = Some(Namespace::of(request)?);
                    }
                    let (Some(versioned), Some(namespace)) = (&versioned, &*namespace) else {
                        continue;
                    };
                    let sent = sent.get_or_insert_with(|| admission_request(request, self.row));
                    for params in &params {
                        let inputs = self.inputs(versioned, sent, params.as_ref(), namespace);
                        let outcome = self.authorizer.settle(|| evaluate(policy, &inputs)).await;
                        report.decided(request, &policy.name, binding, &outcome);
                        annotations.add(&outcome);
                    }
                }
                Err(why) => {
                    let binding = Some(&*binding.name);
                    report.misconfigured(&policy.name, policy.failure, binding, &why);
                }
            }
        }
        annotations.publish(request, &policy.name);
        Ok(())
    }

    /// The parameters to evaluate with, of which one may be null; `None` if the binding does not match. The
    /// objects are converted when the first parameter is found.
    async fn params<'v>(
        &'v self,
        kind: Option<&'static Resource>,
        binding: &Binding,
        versioned: &mut Option<Versioned<'v>>,
    ) -> Result<Option<Vec<Option<Value>>>, String> {
        if let Some(resources) = &binding.resources
            && matches(resources, self.request, self.object)?.is_none()
        {
            return Ok(None);
        }
        let params: Vec<Option<Value>> = match (kind, &binding.param_ref) {
            (Some(kind), Some(reference)) => {
                let found = reference.collect(kind, self.request).await?;
                found.into_iter().map(Some).collect()
            }
            _ => vec![None],
        };
        if versioned.is_none() && !params.is_empty() {
            let converted = Versioned::of(self.request, self.object, self.row).await;
            let fault = |why: String| format!("failed to convert object version: {why}");
            *versioned = Some(converted.map_err(fault)?);
        }
        Ok(Some(params))
    }

    fn inputs<'v>(
        &'v self,
        versioned: &'v Versioned<'_>,
        sent: &'v Value,
        params: Option<&'v Value>,
        namespace: &'v Namespace,
    ) -> Inputs<'v> {
        Inputs {
            object: versioned.object(),
            old_object: versioned.old(),
            request: sent,
            params,
            namespace: namespace.object(),
            authorizer: Some(self.authorizer),
        }
    }
}
