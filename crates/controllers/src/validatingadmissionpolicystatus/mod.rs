//! Type checking of ValidatingAdmissionPolicies: what is wrong with their expressions for the resources that
//! their rules name goes into their status.
//!
//! Watches ValidatingAdmissionPolicies; reads discovery and OpenAPI documents when one changed.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use admission::policies::{
    GroupVersionKind, NamedResource, Warning, check_types, kinds_to_check, named_resources,
    param_kind,
};
use bytes::Bytes;
use client::{Action, Client, Error, Informer, Patch, Queue};
use http::Method;
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use serde_json::{Value, json};

use crate::Context;
use crate::harness::Reconciler;
use crate::meta::name;

/// Policies checked at once (upstream's number of workers).
const WORKERS: usize = 5;
/// The field manager of the status.
const MANAGER: &str = "validatingadmissionpolicy-status";

pub(crate) fn start(context: &Context) {
    let this = TypeChecking { client: context.client.clone(), policies: context.informers.of() };
    let queue = Queue::new();
    let keys = queue.clone();
    this.policies.on_change(move |change| keys.add(name(&change.object().metadata).to_owned()));
    crate::harness::start(
        context,
        "validatingadmissionpolicy-status-controller",
        WORKERS,
        queue,
        this,
    );
}

#[derive(Clone)]
struct TypeChecking {
    client: Client,
    policies: Informer<ValidatingAdmissionPolicy>,
}

impl Reconciler for TypeChecking {
    type Key = String;

    async fn synced(&self) {
        self.policies.synced().await;
    }

    async fn reconcile(&self, own: String) -> Result<Action, Error> {
        let Some(policy) = self.policies.get("", &own) else { return Ok(Action::Done) };
        let observed = policy.status.as_ref().and_then(|status| status.observed_generation);
        let generation = policy.metadata.generation.unwrap_or(0);
        if generation <= observed.unwrap_or(0) {
            return Ok(Action::Done);
        }
        let warnings = self.check(&policy).await?;
        let apply = Patch::Apply {
            manager: MANAGER.into(),
            force: true,
            object: status(&own, generation, &warnings),
        };
        let written = self.client.patch_status::<ValidatingAdmissionPolicy>("", &own, &apply).await;
        written.map(|_| Action::Done)
    }
}

/// The configuration that is applied.
fn status(name: &str, generation: i64, warnings: &[Warning]) -> Value {
    let warning =
        |warning: &Warning| json!({"fieldRef": warning.field_ref, "warning": warning.warning});
    let mut checking = json!({});
    if !warnings.is_empty() {
        checking["expressionWarnings"] = warnings.iter().map(warning).collect();
    }
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": name},
        "status": {"observedGeneration": generation, "typeChecking": checking},
    })
}

/// A group and version, as paths name them.
type GroupVersion = (String, String);

impl TypeChecking {
    async fn check(&self, policy: &ValidatingAdmissionPolicy) -> Result<Vec<Warning>, Error> {
        let policy = serde_json::to_value(policy).unwrap_or_default();
        let named = named_resources(&policy);
        let places = named.iter().flatten();
        let places: BTreeSet<GroupVersion> =
            places.map(|(group, version, _)| (group.clone(), version.clone())).collect();
        let known = self.read_all(places, "").await?;
        let kinds_of = |resources: &Vec<NamedResource>| {
            resources.iter().filter_map(|resource| kind_of(&known, resource)).collect()
        };
        let found: Vec<Vec<GroupVersionKind>> = named.iter().map(kinds_of).collect();
        let kinds = kinds_to_check(&found);
        let wanted = kinds.iter().cloned().chain(param_kind(&policy));
        let places: BTreeSet<GroupVersion> =
            wanted.map(|kind| (kind.group, kind.version)).collect();
        let documents = self.read_all(places, "/openapi/v3").await?;
        let document = |kind: &GroupVersionKind| {
            documents.get(&(kind.group.clone(), kind.version.clone())).filter(|d| !d.is_null())
        };
        Ok(check_types(&policy, &kinds, document))
    }

    /// The documents of groups and versions below a path.
    async fn read_all(
        &self,
        places: BTreeSet<GroupVersion>,
        before: &str,
    ) -> Result<BTreeMap<GroupVersion, Value>, Error> {
        let mut all = BTreeMap::new();
        for place in places {
            let document = self.read(&root(&place, before)).await?;
            all.insert(place, document);
        }
        Ok(all)
    }

    /// A document; null if there is none, since a policy may name what is not served.
    async fn read(&self, path: &str) -> Result<Value, Error> {
        let answer = self.client.send(Method::GET, path.to_owned(), None, Bytes::new()).await;
        match answer {
            Err(error) if error.is_not_found() => Ok(Value::Null),
            other => other,
        }
    }
}

fn root((group, version): &GroupVersion, before: &str) -> String {
    match group.as_str() {
        "" => format!("{before}/api/{version}"),
        group => format!("{before}/apis/{group}/{version}"),
    }
}

/// The kind of a resource, by what discovery says of its group and version.
fn kind_of(
    known: &BTreeMap<GroupVersion, Value>,
    (group, version, resource): &NamedResource,
) -> Option<GroupVersionKind> {
    let list = known.get(&(group.clone(), version.clone()))?["resources"].as_array()?;
    let found = list.iter().find(|known| known["name"] == resource.as_str())?;
    let kind = found["kind"].as_str()?.to_owned();
    Some(GroupVersionKind { group: group.clone(), version: version.clone(), kind })
}
