//! The plugins of both kinds of policies over a cluster of a few objects: every answer, and every way to none.

mod figures;
mod mutating;
mod params;
mod validating;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use api::registry::Registry;
use api::{Object, Status};
use auth::{RequestInfo, User};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::Policies;
use crate::attributes::{Attributes, Operation};
use crate::chain::Chain;
use crate::fakes::Fake;
use crate::reinvocation::Reinvocation;
use crate::versions::Single;

/// Stored policies and bindings, by resource.
#[derive(Default)]
struct Configured(HashMap<&'static str, Vec<Value>>);

struct Stored(Vec<Arc<Object>>);

impl auth::Objects for Configured {
    fn of(&self, _: &str, resource: &str) -> Option<Arc<dyn auth::Collection>> {
        let trees = self.0.get(resource).map_or(&[][..], Vec::as_slice);
        let stored = trees.iter().zip(1..).map(|(tree, at)| Arc::new(Object::new(tree, at, &[])));
        Some(Arc::new(Stored(stored.collect())))
    }
}

impl auth::Collection for Stored {
    fn get(&self, _: &str) -> Option<Arc<Object>> {
        None
    }

    fn list(&self, _: &str, _: &dyn Fn(&Object) -> bool) -> Vec<Arc<Object>> {
        self.0.clone()
    }

    fn list_by(&self, _: (&str, &str), _: &str) -> Vec<Arc<Object>> {
        Vec::new()
    }

    fn last_change(&self) -> u64 {
        self.0.len() as u64
    }
}

fn constraints() -> Value {
    json!({
        "namespaceSelector": {}, "objectSelector": {}, "matchPolicy": "Equivalent",
        "resourceRules": [{"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"],
            "resources": ["configmaps", "namespaces", "pods/exec"], "scope": "*"}],
    })
}

/// What a request met.
#[derive(Debug)]
struct Met {
    verdict: Result<Value, Status>,
    warnings: Vec<String>,
    annotations: Vec<(String, String)>,
}

impl Met {
    fn message(&self) -> &str {
        self.verdict.as_ref().expect_err("refused").message.as_str()
    }
}

impl Configured {
    fn policy(mut self, kind: &'static str, name: &str, mut spec: Value) -> Configured {
        if spec["matchConstraints"].is_null() {
            spec["matchConstraints"] = constraints();
        }
        let policy = json!({"metadata": {"name": name, "uid": name}, "spec": spec});
        self.0.entry(kind).or_default().push(policy);
        self
    }

    fn binding(mut self, kind: &'static str, name: &str, mut spec: Value) -> Configured {
        if spec["policyName"].is_null() {
            spec["policyName"] = "p".into();
        }
        self.0.entry(kind).or_default().push(json!({"metadata": {"name": name}, "spec": spec}));
        self
    }

    fn validating(spec: Value) -> Configured {
        Configured::default().policy("validatingadmissionpolicies", "p", spec)
    }

    fn mutating(spec: Value) -> Configured {
        Configured::default().policy("mutatingadmissionpolicies", "p", spec).binding(
            "mutatingadmissionpolicybindings",
            "b",
            json!({}),
        )
    }

    fn bound(self, spec: Value) -> Configured {
        self.binding("validatingadmissionpolicybindings", "b", spec)
    }

    fn denying(self) -> Configured {
        self.bound(json!({"validationActions": ["Deny"]}))
    }

    async fn meet(&self, operation: Operation, path: (&str, &str), object: Value) -> Met {
        let warnings: Mutex<Vec<String>> = Mutex::default();
        let annotations: Mutex<Vec<(String, String)>> = Mutex::default();
        let row = Registry::built_in().find("", "v1", path.0, path.1).expect("a row");
        let namespace = if row.namespaced { "default" } else { "" };
        let info = RequestInfo { namespace: namespace.into(), ..RequestInfo::default() };
        let old = object.clone();
        let request = Attributes {
            operation,
            user: &User::new("ann", &[]),
            info: &info,
            row,
            name: "c",
            old: (operation != Operation::Create).then_some(&old),
            dry_run: false,
            options: &|| Value::Null,
            now: Timestamp::UNIX_EPOCH,
            deadline: None,
            cluster: &cluster(),
            versions: &Single,
            reinvocation: &Reinvocation::default(),
            warn: &|text| unpoisoned(&warnings).push(text),
            annotate: &|key, value| unpoisoned(&annotations).push((key.to_owned(), value)),
        };
        let chain = Chain::of_policies(Arc::new(Policies::new(self)));
        let mut object = if operation == Operation::Delete { Value::Null } else { object };
        let verdict = match chain.mutate(&request, &mut object).await {
            Ok(()) => chain.validate(&request, &object).await,
            Err(status) => Err(status),
        };
        Met {
            verdict: verdict.map(|()| object),
            warnings: warnings.into_inner().expect("unpoisoned"),
            annotations: annotations.into_inner().expect("unpoisoned"),
        }
    }

    /// The creation of a ConfigMap.
    async fn create(&self, data: Value) -> Met {
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "c", "namespace": "default", "labels": {"k": "v"}}, "data": data});
        self.meet(Operation::Create, ("configmaps", ""), object).await
    }
}

fn unpoisoned<T>(all: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    all.lock().expect("unpoisoned")
}

fn cluster() -> Fake {
    let param = |name: &str, namespace: &str, max: &str| {
        json!({"metadata": {"name": name, "namespace": namespace, "labels": {"is": "param"}},
            "data": {"max": max}})
    };
    Fake::with(&[
        ("namespaces", json!({"metadata": {"name": "default", "labels": {"team": "red"}}})),
        ("configmaps", param("five", "default", "5")),
        ("configmaps", param("nine", "default", "9")),
        ("configmaps", param("far", "elsewhere", "1")),
        ("nodes", json!({"metadata": {"name": "n"}})),
    ])
}

fn checking(expression: &str) -> Value {
    json!({"validations": [{"expression": expression}]})
}
