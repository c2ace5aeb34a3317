//! The plugins of both kinds of policies over a cluster of a few objects: every answer, and every way to none.

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

#[tokio::test]
async fn a_failed_validation_is_told_as_upstream_tells_it() {
    let denied = Configured::validating(checking("object.data.a == '2'")).denying();
    let met = denied.create(json!({"a": "1"})).await;
    let status = met.verdict.expect_err("refused");
    let text = "ValidatingAdmissionPolicy 'p' with binding 'b' denied request: failed expression: object.data.a == '2'";
    assert_eq!(status.message, format!("configmaps \"c\" is forbidden: {text}"));
    assert_eq!((status.code, status.reason.as_str()), (422, "Invalid"));
    assert_eq!(status.details.expect("details").causes[0].message, text);
    assert!(denied.create(json!({"a": "2"})).await.verdict.is_ok());
}

#[tokio::test]
async fn a_policy_without_binding_and_a_binding_without_policy_do_nothing() {
    let unbound = Configured::validating(checking("false"));
    assert!(unbound.create(json!({})).await.verdict.is_ok());
    let other = Configured::validating(checking("false"))
        .bound(json!({"policyName": "other", "validationActions": ["Deny"]}));
    assert!(other.create(json!({})).await.verdict.is_ok());
}

#[tokio::test]
async fn reasons_have_their_codes() {
    for (reason, code) in
        [("Forbidden", 403), ("Unauthorized", 401), ("RequestEntityTooLarge", 413)]
    {
        let spec = json!({"validations": [{"expression": "false", "reason": reason}]});
        let met = Configured::validating(spec).denying().create(json!({})).await;
        let status = met.verdict.expect_err("refused");
        assert_eq!((status.code, status.reason.as_str()), (code, reason));
    }
}

#[tokio::test]
async fn messages_come_from_their_expression_if_it_says_something_usable() {
    for (message, by, want) in [
        ("plain", "", "plain"),
        (" trimmed ", "", "trimmed"),
        ("", "' got ' + object.data.a ", "got 1"),
        ("plain", "object.data.missing", "plain"),
        ("plain", "'two\\nlines'", "plain"),
        ("plain", "'  '", "plain"),
        ("", "['x', 'y'].join('').size() > 0 ? '' : 'z'", "failed expression: false"),
        ("plain", "string(authorizer)", "plain"),
        (
            "plain",
            "'0123456789'.replace('', '0123456789').replace('', '0123456789').replace('', '0123456789')",
            "plain",
        ),
    ] {
        let spec = json!({"validations": [
            {"expression": "false", "message": message, "messageExpression": by}]});
        let met = Configured::validating(spec).denying().create(json!({"a": "1"})).await;
        assert!(
            met.message().ends_with(&format!("denied request: {want}")),
            "{by}: {}",
            met.message()
        );
    }
}

#[tokio::test]
async fn warnings_and_audit_let_requests_pass() {
    let spec =
        json!({"validations": [{"expression": "true"}, {"expression": "false", "message": "no"}]});
    let met = Configured::validating(spec)
        .bound(json!({"validationActions": ["Warn", "Audit"]}))
        .create(json!({}))
        .await;
    assert!(met.verdict.is_ok());
    let warning = "Validation failed for ValidatingAdmissionPolicy 'p' with binding 'b': no";
    assert_eq!(met.warnings, [warning]);
    let [(key, value)] = &met.annotations[..] else { panic!("{:?}", met.annotations) };
    assert_eq!(key, "validation.policy.admission.k8s.io/validation_failure");
    let value: Value = serde_json::from_str(value).expect("JSON");
    assert_eq!(
        value,
        json!([{"message": "no", "policy": "p", "binding": "b", "expressionIndex": 1,
            "validationActions": ["Warn", "Audit"]}])
    );
}

#[tokio::test]
async fn faults_are_subject_to_the_failure_policy() {
    let fault = "object.data.missing == ''";
    let met = Configured::validating(checking(fault)).denying().create(json!({"a": "1"})).await;
    let want =
        format!("denied request: expression '{fault}' resulted in error: no such key: missing");
    assert!(met.message().ends_with(&want), "{}", met.message());
    for expression in [fault, "1 +", "'text'"] {
        let mut spec = checking(expression);
        spec["failurePolicy"] = "Ignore".into();
        let met = Configured::validating(spec).denying().create(json!({"a": "1"})).await;
        assert!(met.verdict.is_ok(), "{expression}");
    }
    let wrong = Configured::validating(checking("'text'")).denying().create(json!({})).await;
    let want = "compilation error: must evaluate to bool but got string";
    assert!(wrong.message().ends_with(want), "{}", wrong.message());
}

#[tokio::test]
async fn match_conditions_come_first() {
    for (expression, failure, refused) in [
        ("object.data.a == '9'", "Fail", None),
        ("object.data.a == '1'", "Fail", Some("failed expression: false")),
        ("object.data.none == '1'", "Ignore", None),
        ("object.data.none == '1'", "Fail", Some("no such key: none")),
        ("variables.v == 1", "Fail", Some("failed expression: false")),
    ] {
        let spec = json!({
            "failurePolicy": failure, "validations": [{"expression": "false"}],
            "variables": [{"name": "v", "expression": "1"}],
            "matchConditions": [{"name": "m", "expression": expression}],
        });
        let met = Configured::validating(spec).denying().create(json!({"a": "1"})).await;
        match refused {
            Some(why) => assert!(met.message().ends_with(why), "{expression}: {}", met.message()),
            None => assert!(met.verdict.is_ok(), "{expression}"),
        }
    }
}

#[tokio::test]
async fn bindings_narrow_what_a_policy_matches() {
    let with = |resources: Value| {
        Configured::validating(checking("false"))
            .bound(json!({"validationActions": ["Deny"], "matchResources": resources}))
    };
    let selecting = |selector: &str, labels: Value| {
        with(json!({"matchPolicy": "Exact", selector: {"matchLabels": labels}}))
    };
    assert!(
        selecting("namespaceSelector", json!({"team": "red"}))
            .create(json!({}))
            .await
            .verdict
            .is_err()
    );
    assert!(
        selecting("namespaceSelector", json!({"team": "blue"}))
            .create(json!({}))
            .await
            .verdict
            .is_ok()
    );
    assert!(
        selecting("objectSelector", json!({"k": "v"})).create(json!({})).await.verdict.is_err()
    );
    assert!(selecting("objectSelector", json!({"k": "w"})).create(json!({})).await.verdict.is_ok());
    let excluding = json!({"excludeResourceRules": [{"operations": ["CREATE"], "apiGroups": [""],
        "apiVersions": ["v1"], "resources": ["configmaps"], "resourceNames": ["c"]}]});
    assert!(with(excluding).create(json!({})).await.verdict.is_ok());
}

fn with_params(reference: Value) -> Configured {
    let spec = json!({
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "validations": [{"expression": "params == null || int(object.data.n) <= int(params.data.max)",
            "messageExpression": "'max ' + params.data.max"}],
    });
    Configured::validating(spec)
        .bound(json!({"validationActions": ["Deny"], "paramRef": reference}))
}

#[tokio::test]
async fn parameters_are_named_or_selected() {
    let n = |n: &str| json!({"n": n});
    let named = |namespace: &str, name: &str, missing: &str| {
        with_params(
            json!({"name": name, "namespace": namespace, "parameterNotFoundAction": missing}),
        )
    };
    assert!(named("", "five", "Deny").create(n("5")).await.verdict.is_ok());
    assert!(named("", "five", "Deny").create(n("6")).await.message().ends_with("request: max 5"));
    assert!(named("elsewhere", "far", "Deny").create(n("2")).await.message().ends_with("max 1"));
    assert!(named("", "none", "Allow").create(n("6")).await.verdict.is_ok());
    let missing = named("", "none", "Deny").create(n("6")).await;
    let want = "with binding 'b' denied request: failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction";
    assert!(missing.message().ends_with(want), "{}", missing.message());
    let selected = with_params(json!({"selector": {"matchLabels": {"is": "param"}},
        "parameterNotFoundAction": "Deny"}));
    assert!(selected.create(n("5")).await.verdict.is_ok());
    assert!(selected.create(n("7")).await.message().ends_with("max 5"));
    assert!(selected.create(n("10")).await.message().ends_with("max 5"), "the first is told");
    let unreferenced = with_params(Value::Null);
    assert!(unreferenced.create(n("99")).await.verdict.is_ok(), "params are null");
}

#[tokio::test]
async fn parameters_that_cannot_be_are_refused() {
    let kinds = |kind: Value, reference: Value| {
        let spec = json!({"paramKind": kind, "validations": [{"expression": "true"}]});
        Configured::validating(spec)
            .bound(json!({"validationActions": ["Deny"], "paramRef": reference}))
    };
    let unknown = kinds(json!({"apiVersion": "x.io/v1", "kind": "Nope"}), json!({"name": "a"}));
    let met = unknown.create(json!({})).await;
    let want = "ValidatingAdmissionPolicy 'p' denied request: failed to configure policy: failed to find resource referenced by paramKind: 'x.io/v1, Kind=Nope'";
    assert!(met.message().ends_with(want), "{}", met.message());
    let cluster_scoped = json!({"apiVersion": "v1", "kind": "Node"});
    let met = kinds(cluster_scoped.clone(), json!({"name": "n", "namespace": "x"}))
        .create(json!({}))
        .await;
    let want = "paramRef.namespace must not be provided for a cluster-scoped `paramKind`";
    assert!(met.message().ends_with(want), "{}", met.message());
    assert!(kinds(cluster_scoped, json!({"name": "n"})).create(json!({})).await.verdict.is_ok());
    let namespaced =
        kinds(json!({"apiVersion": "v1", "kind": "ConfigMap"}), json!({"name": "five"}));
    let namespace = json!({"metadata": {"name": "new"}});
    let met = namespaced.meet(Operation::Create, ("namespaces", ""), namespace).await;
    let want =
        "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources";
    assert!(met.message().ends_with(want), "{}", met.message());
}

#[tokio::test]
async fn audit_annotations_are_published_once_a_value() {
    let spec = json!({
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"}, "validations": [{"expression": "true"}],
        "auditAnnotations": [
            {"key": "max", "valueExpression": "' ' + params.data.max"},
            {"key": "same", "valueExpression": "string(object.data.a)"},
            {"key": "null", "valueExpression": "null"},
            {"key": "blank", "valueExpression": "'  '"},
        ],
    });
    let reference =
        json!({"selector": {"matchLabels": {"is": "param"}}, "parameterNotFoundAction": "Deny"});
    let bound = Configured::validating(spec)
        .bound(json!({"validationActions": ["Deny"], "paramRef": reference}));
    let met = bound.create(json!({"a": "1"})).await;
    let want = [("p/max", "5, 9"), ("p/same", "1")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    assert_eq!(met.annotations, want);
    let failing =
        json!({"auditAnnotations": [{"key": "k", "valueExpression": "string(object.data.none)"}]});
    let met = Configured::validating(failing.clone()).denying().create(json!({"a": "1"})).await;
    assert!(met.message().ends_with("no such key: none"), "{}", met.message());
    let mut ignoring = failing;
    ignoring["failurePolicy"] = "Ignore".into();
    let met = Configured::validating(ignoring).denying().create(json!({"a": "1"})).await;
    assert!(met.verdict.is_ok() && met.annotations.is_empty());
}

#[tokio::test]
async fn deletions_connections_and_namespaces_are_seen() {
    let gone =
        checking("object == null && oldObject.data.a == '1' && request.operation == 'DELETE'");
    let config = json!({"metadata": {"name": "c", "namespace": "default"}, "data": {"a": "1"}});
    let policy = Configured::validating(gone).denying();
    let met = policy.meet(Operation::Delete, ("configmaps", ""), config).await;
    assert!(met.verdict.is_ok(), "{met:?}");
    let policy = Configured::validating(checking("!object.stdin")).denying();
    let options = json!({"kind": "PodExecOptions", "stdin": true});
    let met = policy.meet(Operation::Connect, ("pods", "exec"), options).await;
    assert!(met.message().ends_with("failed expression: !object.stdin"));
    let policy = Configured::validating(checking("namespaceObject == null")).denying();
    let namespace = json!({"metadata": {"name": "new"}});
    assert!(policy.meet(Operation::Create, ("namespaces", ""), namespace).await.verdict.is_ok());
    let policy = Configured::validating(checking("namespaceObject.metadata.labels.team == 'red'"));
    assert!(policy.denying().create(json!({})).await.verdict.is_ok());
}

#[tokio::test]
async fn costs_have_a_limit_for_all_validations_together() {
    let costly = "[1,2,3,4,5,6,7,8,9,10].all(a, [1,2,3,4,5,6,7,8,9,10].all(b, \
        [1,2,3,4,5,6,7,8,9,10].all(c, [1,2,3,4,5,6,7,8,9,10].all(d, a + b + c + d > 0 && \
        [1,2,3,4,5,6,7,8,9,10].all(e, e > 0)))))";
    let many: Vec<Value> = (0..30).map(|_| json!({"expression": costly})).collect();
    let met =
        Configured::validating(json!({"validations": many})).denying().create(json!({})).await;
    let want = "denied request: validation failed due to running out of cost budget, no further validation rules will be run";
    assert!(met.message().ends_with(want), "{}", met.message());
}

fn applying(expression: &str) -> Value {
    json!({"mutations": [{"patchType": "ApplyConfiguration",
        "applyConfiguration": {"expression": expression}}], "reinvocationPolicy": "Never"})
}

fn patching(expression: &str) -> Value {
    json!({"mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}],
        "reinvocationPolicy": "Never"})
}

async fn mutated(spec: Value) -> Value {
    let met = Configured::mutating(spec).create(json!({"a": "1"})).await;
    met.verdict.expect("admitted")["data"].clone()
}

#[tokio::test]
async fn configurations_and_patches_change_objects() {
    let spec = applying("Object{data: {'b': object.data.a + '!'}}");
    assert_eq!(mutated(spec).await, json!({"a": "1", "b": "1!"}));
    let spec = patching("[JSONPatch{op: 'add', path: '/data/z', value: 'y'}]");
    assert_eq!(mutated(spec).await, json!({"a": "1", "z": "y"}));
    let spec = patching(
        "[JSONPatch{op: 'test', path: '/data/a', value: '9'}, JSONPatch{op: 'remove', path: '/data/a'}]",
    );
    assert_eq!(mutated(spec).await, json!({"a": "1"}), "a failed test leaves the object");
    let mut both = applying("Object{data: {'b': '2'}}");
    let copy = patching("[JSONPatch{op: 'copy', from: '/data/b', path: '/data/c'}]");
    both["mutations"].as_array_mut().expect("a list").push(copy["mutations"][0].clone());
    assert_eq!(mutated(both).await, json!({"a": "1", "b": "2", "c": "2"}));
    let mut ignored = applying("Object{data: {'b': object.data.none}}");
    ignored["failurePolicy"] = "Ignore".into();
    assert_eq!(mutated(ignored).await, json!({"a": "1"}));
}

#[tokio::test]
async fn mutations_that_fail_refuse_the_request() {
    for (spec, want) in [
        (
            patching("[JSONPatch{op: 'remove', path: '/data/none'}]"),
            "JSON Patch: error in remove for path: '/data/none': Unable to remove nonexistent key: none: missing value",
        ),
        (
            applying("Object{data: Object.spec{a: '1'}}"),
            "type mismatch: unexpected type name \"Object.spec\", expected \"Object.data\", which matches field name path from root Object type",
        ),
        (
            applying("Object{data: {'b': object.data.none}}"),
            "expression 'Object{data: {'b': object.data.none}}' resulted in error: no such key: none",
        ),
        (applying("1"), "must evaluate to Object but got int"),
        (patching("[1]"), "must evaluate to list(JSONPatch) but got list(int)"),
    ] {
        let met = Configured::mutating(spec).create(json!({"a": "1"})).await;
        let status = met.verdict.expect_err("refused");
        assert_eq!(status.message, format!("policy 'p' with binding 'b' denied request: {want}"));
        assert_eq!((status.code, status.reason.as_str()), (403, "Invalid"));
    }
}

#[tokio::test]
async fn policies_run_again_when_later_ones_change_the_object() {
    let appending = |policy: &str| {
        format!("[JSONPatch{{op: 'replace', path: '/data/a', value: object.data.a + '{policy}'}}]")
    };
    let mut first = patching(&appending("p"));
    first["reinvocationPolicy"] = "IfNeeded".into();
    let second = patching(&appending("q"));
    let both = Configured::mutating(first)
        .policy("mutatingadmissionpolicies", "q", second)
        .binding("mutatingadmissionpolicybindings", "c", json!({"policyName": "q"}));
    let met = both.create(json!({"a": ""})).await;
    assert_eq!(met.verdict.expect("admitted")["data"], json!({"a": "pqp"}));
}

#[tokio::test]
async fn a_mutated_object_is_validated_and_configurations_are_exempt() {
    let both = Configured::mutating(applying("Object{data: {'a': '2'}}"))
        .policy("validatingadmissionpolicies", "p", checking("object.data.a == '1'"))
        .denying();
    assert!(both.create(json!({"a": "1"})).await.message().contains("denied request"));
    let mut everything = checking("false");
    everything["matchConstraints"] = json!({"resourceRules": [{"operations": ["*"],
        "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"]}]});
    let policies = Policies::new(&Configured::validating(everything).denying());
    let plugin = super::Validating(Arc::new(policies));
    for (group, resource, handled) in [
        ("", "pods", true),
        ("admissionregistration.k8s.io", "validatingadmissionpolicies", false),
        ("admissionregistration.k8s.io", "mutatingwebhookconfigurations", false),
        ("authorization.k8s.io", "subjectaccessreviews", false),
        ("authentication.k8s.io", "tokenreviews", false),
    ] {
        let row = Registry::built_in().find(group, "v1", resource, "").expect("a row");
        let request = Attributes {
            operation: Operation::Create,
            user: &User::default(),
            info: &RequestInfo::default(),
            row,
            name: "",
            old: None,
            dry_run: false,
            options: &|| Value::Null,
            now: Timestamp::UNIX_EPOCH,
            deadline: None,
            cluster: &cluster(),
            versions: &Single,
            reinvocation: &Reinvocation::default(),
            warn: &|_| {},
            annotate: &|_, _| {},
        };
        let handles = crate::plugin::Plugin::handles(&plugin, &request);
        assert_eq!(handles, handled, "{resource}");
    }
}
