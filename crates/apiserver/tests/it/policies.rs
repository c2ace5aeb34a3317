//! Admission policies through the server: the flows of upstream's e2e tests `ValidatingAdmissionPolicy` and
//! `MutatingAdmissionPolicy`, parameters of custom kinds, other versions, and what is refused when written.

use serde_json::{Value, json};

use crate::harness::World;

const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn rule(group: &str, version: &str, resource: &str) -> Value {
    json!({"operations": ["CREATE", "UPDATE"], "apiGroups": [group], "apiVersions": [version],
        "resources": [resource]})
}

fn deployment(name: &str, replicas: i64) -> Value {
    let labels = json!({"app": "a"});
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": {
        "replicas": replicas, "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
}

async fn validating(world: &World, name: &str, rule: Value, mut spec: Value) {
    spec["matchConstraints"] = json!({"resourceRules": [rule]});
    let policy = json!({"metadata": {"name": name}, "spec": spec});
    world.make(&format!("{GROUP}/validatingadmissionpolicies"), &policy).await;
}

async fn bind(world: &World, name: &str, mut spec: Value) {
    spec["policyName"] = name.into();
    if spec["validationActions"].is_null() {
        spec["validationActions"] = json!(["Deny"]);
    }
    let binding = json!({"metadata": {"name": format!("{name}-binding")}, "spec": spec});
    world.make(&format!("{GROUP}/validatingadmissionpolicybindings"), &binding).await;
}

async fn mutating(world: &World, name: &str, rule: Value, mut spec: Value) {
    spec["matchConstraints"] = json!({"resourceRules": [rule]});
    if spec["reinvocationPolicy"].is_null() {
        spec["reinvocationPolicy"] = "Never".into();
    }
    let policy = json!({"metadata": {"name": name}, "spec": spec});
    world.make(&format!("{GROUP}/mutatingadmissionpolicies"), &policy).await;
    let binding =
        json!({"metadata": {"name": format!("{name}-binding")}, "spec": {"policyName": name}});
    world.make(&format!("{GROUP}/mutatingadmissionpolicybindings"), &binding).await;
}

fn applying(expression: &str) -> Value {
    json!({"mutations": [{"patchType": "ApplyConfiguration",
        "applyConfiguration": {"expression": expression}}]})
}

fn patching(expression: &str) -> Value {
    json!({"mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}]})
}

#[tokio::test]
async fn should_validate_against_a_deployment() {
    let world = World::new().await;
    let spec = json!({"validations": [{"expression": "object.spec.replicas > 1",
        "messageExpression": "'wants replicas > 1, got ' + object.spec.replicas"}, {
        "expression": "namespaceObject.metadata.name == 'default'", "message": "Internal error! Other namespace should not be allowed."}]});
    // A message of the wrong type is refused when the policy is written.
    let mut wrong = json!({"metadata": {"name": "wrong"}, "spec": spec});
    wrong["spec"]["matchConstraints"] =
        json!({"resourceRules": [rule("apps", "v1", "deployments")]});
    wrong["spec"]["validations"][0]["messageExpression"] = "1".into();
    let refused = world.ask("POST", &format!("{GROUP}/validatingadmissionpolicies"), &wrong).await;
    assert_eq!(refused.code, 422, "{}", refused.json());
    let mut spec = spec;
    spec["validations"][0]["messageExpression"] =
        "'wants replicas > 1, got ' + string(object.spec.replicas)".into();
    validating(&world, "replicas", rule("apps", "v1", "deployments"), spec).await;
    world.make(DEPLOYMENTS, &deployment("before", 1)).await;
    bind(&world, "replicas", json!({})).await;
    let refused = world.ask("POST", DEPLOYMENTS, &deployment("small", 1)).await;
    let want = "deployments.apps \"small\" is forbidden: ValidatingAdmissionPolicy 'replicas' with binding 'replicas-binding' denied request: wants replicas > 1, got 1";
    assert_eq!(refused.told(), (422, want.to_owned()));
    world.make(DEPLOYMENTS, &deployment("large", 2)).await;
    let (path, fewer) = (format!("{DEPLOYMENTS}/large"), json!({"spec": {"replicas": 1}}));
    let scaled = world.ask_by(&world.admin, ("PATCH", &path), &fewer).await;
    assert_eq!(scaled.code, 422, "updates are validated");
    let binding = format!("{GROUP}/validatingadmissionpolicybindings/replicas-binding");
    assert_eq!(world.ask("DELETE", &binding, &Value::Null).await.code, 200);
    world.make(DEPLOYMENTS, &deployment("small", 1)).await;
}

#[tokio::test]
async fn should_allow_expressions_to_refer_variables() {
    let world = World::new().await;
    let spec = json!({
        "variables": [
            {"name": "replicas", "expression": "object.spec.replicas"},
            {"name": "oddReplicas", "expression": "variables.replicas % 2 == 1"},
            {"name": "replicasReminder", "expression": "variables.replicas % 2"},
        ],
        "validations": [
            {"expression": "variables.replicas > 1"},
            {"expression": "variables.oddReplicas"},
            {"expression": "variables.replicasReminder == 1"},
        ],
    });
    validating(&world, "odd", rule("apps", "v1", "deployments"), spec).await;
    bind(&world, "odd", json!({})).await;
    for (replicas, code) in [(1, 422), (2, 422), (3, 201)] {
        let answer =
            world.ask("POST", DEPLOYMENTS, &deployment(&format!("d{replicas}"), replicas)).await;
        assert_eq!(answer.code, code, "{replicas}: {}", answer.json());
    }
}

#[tokio::test]
async fn should_mutate_a_deployment() {
    let world = World::new().await;
    let annotate =
        "Object{metadata: Object.metadata{annotations: {'mutated-by': 'admission-policy'}}}";
    mutating(&world, "annotate", rule("apps", "v1", "deployments"), applying(annotate)).await;
    let scale = applying("Object{spec: Object.spec{replicas: 1337}}");
    mutating(&world, "scale", rule("apps", "v1", "deployments"), scale).await;
    let made = world.make(DEPLOYMENTS, &deployment("marker", 1)).await;
    assert_eq!(made["metadata"]["annotations"]["mutated-by"], "admission-policy");
    assert_eq!(made["spec"]["replicas"], 1337);
    // Nobody owns what a policy set: an update that the policy does not see takes nothing away.
    let managers = made["metadata"]["managedFields"].to_string();
    assert!(!managers.contains("mutated-by"), "{managers}");
}

#[tokio::test]
async fn lists_merge_by_their_keys_and_what_is_added_has_defaults() {
    let world = World::new().await;
    let expression = "Object{spec: Object.spec{template: Object.spec.template{spec: Object.spec.template.spec{\
        containers: [Object.spec.template.spec.containers{name: 'c', imagePullPolicy: 'Never'}, \
        Object.spec.template.spec.containers{name: 'side', image: 's:1'}]}}}}";
    mutating(&world, "side", rule("apps", "v1", "deployments"), applying(expression)).await;
    let made = world.make(DEPLOYMENTS, &deployment("d", 1)).await;
    let containers = &made["spec"]["template"]["spec"]["containers"];
    assert_eq!(containers[0]["image"], "i", "{containers}");
    assert_eq!(containers[0]["imagePullPolicy"], "Never");
    assert_eq!(
        (&containers[1]["image"], &containers[1]["imagePullPolicy"]),
        (&json!("s:1"), &json!("IfNotPresent"))
    );
}

#[tokio::test]
async fn mutations_that_no_object_can_have_are_refused() {
    let world = World::new().await;
    let template = |inner: &str| {
        applying(&format!(
            "Object{{spec: Object.spec{{template: Object.spec.template{{spec: Object.spec.template.spec{{{inner}}}}}}}}}"
        ))
    };
    for (name, spec, code, want) in [
        (
            "atomic",
            template("nodeSelector: {'a': 'b'}"),
            403,
            "error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: .spec.template.spec.nodeSelector",
        ),
        (
            "unknown",
            applying("Object{spec: Object.spec{nothing: 1}}"),
            403,
            "error applying patch: failed to convert patch object to typed object: .spec.nothing: field not declared in schema",
        ),
        (
            "strict",
            patching("[JSONPatch{op: 'add', path: '/spec/nothing', value: 1}]"),
            500,
            "Internal error occurred: strict decoding error: unknown field \"spec.nothing\"",
        ),
        (
            "invalid",
            patching("[JSONPatch{op: 'replace', path: '/spec/replicas', value: -1}]"),
            422,
            "Deployment.apps \"d\" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0",
        ),
    ] {
        mutating(&world, name, rule("apps", "v1", "deployments"), spec).await;
        let (found, message) = world.ask("POST", DEPLOYMENTS, &deployment("d", 1)).await.told();
        assert_eq!(found, code, "{name}: {message}");
        assert!(message.ends_with(want), "{name}: {message}");
        let policy = format!("{GROUP}/mutatingadmissionpolicies/{name}");
        assert_eq!(world.ask("DELETE", &policy, &Value::Null).await.code, 200);
    }
}

#[tokio::test]
async fn objects_may_be_values_of_a_patch() {
    let world = World::new().await;
    let spec = patching(
        "[JSONPatch{op: 'add', path: '/spec/template/spec/tolerations', value: [{'key': 'k', 'operator': 'Exists'}]}, \
         JSONPatch{op: 'add', path: '/metadata/labels', value: {}}, \
         JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('a/b'), value: 'c'}, \
         JSONPatch{op: 'replace', path: '/spec/strategy', value: Object{type: 'Recreate'}}]",
    );
    mutating(&world, "patch", rule("apps", "v1", "deployments"), spec).await;
    let made = world.make(DEPLOYMENTS, &deployment("d", 1)).await;
    assert_eq!(made["metadata"]["labels"], json!({"a/b": "c"}));
    assert_eq!(made["spec"]["strategy"], json!({"type": "Recreate"}));
    let tolerations = &made["spec"]["template"]["spec"]["tolerations"];
    assert_eq!(*tolerations, json!([{"key": "k", "operator": "Exists"}]));
}

fn limits_definition() -> Value {
    let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {
        "max": {"type": "integer"}}}});
    json!({"metadata": {"name": "limits.e.com"}, "spec": {"group": "e.com", "scope": "Namespaced",
        "names": {"plural": "limits", "singular": "limit", "kind": "Limit", "listKind": "LimitList"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}]}})
}

#[tokio::test]
async fn parameters_may_be_of_a_custom_kind_that_comes_later() {
    let world = World::new().await;
    let spec = json!({
        "paramKind": {"apiVersion": "e.com/v1", "kind": "Limit"},
        "validations": [{"expression": "object.spec.replicas <= params.max",
            "messageExpression": "params.kind + ' ' + string(params.max)"}],
    });
    validating(&world, "limited", rule("apps", "v1", "deployments"), spec).await;
    bind(
        &world,
        "limited",
        json!({"paramRef": {"name": "five", "parameterNotFoundAction": "Deny"}}),
    )
    .await;
    let (code, message) = world.ask("POST", DEPLOYMENTS, &deployment("d", 6)).await.told();
    let want = "failed to configure policy: failed to find resource referenced by paramKind: 'e.com/v1, Kind=Limit'";
    assert_eq!(code, 422);
    assert!(message.ends_with(want), "{message}");
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    world.make(definitions, &limits_definition()).await;
    world
        .until(&format!("{definitions}?watch=true"), |_, definition| {
            let conditions =
                definition["status"]["conditions"].as_array().cloned().unwrap_or_default();
            conditions.iter().any(|c| c["type"] == "Established" && c["status"] == "True")
        })
        .await;
    let (_, message) = world.ask("POST", DEPLOYMENTS, &deployment("d", 6)).await.told();
    assert!(
        message.ends_with("no params found for policy binding with `Deny` parameterNotFoundAction"),
        "{message}"
    );
    let five =
        json!({"apiVersion": "e.com/v1", "kind": "Limit", "metadata": {"name": "five"}, "max": 5});
    world.make("/apis/e.com/v1/namespaces/default/limits", &five).await;
    let (_, message) = world.ask("POST", DEPLOYMENTS, &deployment("d", 6)).await.told();
    assert!(message.ends_with("denied request: Limit 5"), "{message}");
    world.make(DEPLOYMENTS, &deployment("d", 5)).await;
}

#[tokio::test]
async fn a_rule_for_another_version_sees_objects_in_that_version() {
    let world = World::new().await;
    let spec = json!({"validations": [{"expression":
        "request.kind.version == 'v2' && request.requestKind.version == 'v1' && object.spec.metrics[0].resource.target.averageUtilization < 90",
        "message": "too busy"}]});
    validating(&world, "busy", rule("autoscaling", "v2", "horizontalpodautoscalers"), spec).await;
    bind(&world, "busy", json!({})).await;
    let scale = applying("Object{spec: Object.spec{minReplicas: 2}}");
    mutating(&world, "least", rule("autoscaling", "v2", "horizontalpodautoscalers"), scale).await;
    let scaler = |name: &str, percent: i64| {
        json!({"metadata": {"name": name}, "spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": percent,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}}})
    };
    let path = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers";
    let made = world.make(path, &scaler("a", 80)).await;
    assert_eq!(made["spec"]["minReplicas"], 2, "{made}");
    assert_eq!(made["spec"]["targetCPUUtilizationPercentage"], 80);
    let (code, message) = world.ask("POST", path, &scaler("b", 95)).await.told();
    assert_eq!(code, 422);
    assert!(message.ends_with("denied request: too busy"), "{message}");
}

#[tokio::test]
async fn warnings_reach_the_client() {
    let world = World::new().await;
    let spec = json!({"validations": [{"expression": "false", "message": "careful"}]});
    validating(&world, "warn", rule("", "v1", "configmaps"), spec).await;
    bind(&world, "warn", json!({"validationActions": ["Warn", "Audit"]})).await;
    let answer = world.ask("POST", CONFIG_MAPS, &json!({"metadata": {"name": "c"}})).await;
    assert_eq!(answer.code, 201);
    let warning = answer.headers.get("warning").and_then(|v| v.to_str().ok()).unwrap_or("");
    let want = "299 - \"Validation failed for ValidatingAdmissionPolicy 'warn' with binding 'warn-binding': careful\"";
    assert_eq!(warning, want);
}

#[tokio::test]
async fn options_and_subresources_are_seen() {
    let world = World::new().await;
    let spec = json!({"validations": [{"expression":
        "request.options.kind == 'CreateOptions' && request.options.fieldManager == 'me' && request.dryRun",
        "message": "not so"}]});
    validating(&world, "options", rule("", "v1", "configmaps"), spec).await;
    bind(&world, "options", json!({})).await;
    let config = json!({"metadata": {"name": "c"}});
    assert_eq!(world.ask("POST", CONFIG_MAPS, &config).await.code, 422);
    let asked = format!("{CONFIG_MAPS}?fieldManager=me&dryRun=All");
    assert_eq!(world.ask("POST", &asked, &config).await.code, 201);
    let mut of_scale = rule("apps", "v1", "deployments/scale");
    of_scale["operations"] = json!(["UPDATE"]);
    let spec = json!({"validations": [{"expression": "object.kind == 'Scale' && object.spec.replicas < 5"}]});
    validating(&world, "scale", of_scale, spec).await;
    bind(&world, "scale", json!({})).await;
    world.make(DEPLOYMENTS, &deployment("d", 1)).await;
    let scale = |replicas: i64| json!({"spec": {"replicas": replicas}});
    let path = format!("{DEPLOYMENTS}/d/scale");
    assert_eq!(world.ask_by(&world.admin, ("PATCH", &path), &scale(9)).await.code, 422);
    assert_eq!(world.ask_by(&world.admin, ("PATCH", &path), &scale(4)).await.code, 200);
}

#[tokio::test]
async fn deletions_are_validated_with_their_options() {
    let world = World::new().await;
    let spec = json!({"validations": [{"expression":
        "has(request.options.propagationPolicy) && request.options.propagationPolicy == 'Orphan'"}]});
    let mut deleting = rule("", "v1", "configmaps");
    deleting["operations"] = json!(["DELETE"]);
    validating(&world, "keep", deleting, spec).await;
    bind(&world, "keep", json!({})).await;
    world.make(CONFIG_MAPS, &json!({"metadata": {"name": "c"}})).await;
    let path = format!("{CONFIG_MAPS}/c");
    assert_eq!(world.ask("DELETE", &path, &Value::Null).await.code, 422);
    let options = json!({"propagationPolicy": "Orphan"});
    assert_eq!(world.ask("DELETE", &path, &options).await.code, 200);
}

#[tokio::test]
async fn expressions_are_compiled_when_they_are_written() {
    let world = World::new().await;
    let constraints = json!({"resourceRules": [rule("", "v1", "configmaps")]});
    let undeclared = "compilation failed: ERROR: <input>:1:1: undeclared reference to 'nothing' (in container '')\n | nothing\n | ^";
    for (resource, spec, want) in [
        (
            "validatingadmissionpolicies",
            json!({"validations": [{"expression": "nothing"}]}),
            format!("spec.validations[0].expression: Invalid value: \"nothing\": {undeclared}"),
        ),
        (
            "validatingadmissionpolicies",
            json!({"validations": [{"expression": "true"}], "variables": [{"name": "v", "expression": "nothing"}]}),
            format!("spec.variables[0].expression: Invalid value: \"nothing\": {undeclared}"),
        ),
        (
            "validatingadmissionpolicies",
            json!({"validations": [{"expression": "true"}], "matchConditions": [{"name": "m", "expression": " nothing "}]}),
            format!("spec.matchConditions[0].expression: Invalid value: \"nothing\": {undeclared}"),
        ),
        (
            "validatingadmissionpolicies",
            json!({"validations": [{"expression": "true", "messageExpression": "authorizer"}]}),
            "undeclared reference to 'authorizer' (in container '')\n | authorizer\n | ^".to_owned(),
        ),
        (
            "validatingadmissionpolicies",
            json!({"auditAnnotations": [{"key": "k", "valueExpression": "1"}]}),
            "spec.auditAnnotations[0].valueExpression: Invalid value: \"1\": must evaluate to one of [string null_type] but got int".to_owned(),
        ),
        (
            "mutatingadmissionpolicies",
            applying("1"),
            "spec.mutations[0].applyConfiguration.expression: Invalid value: \"1\": must evaluate to Object but got int".to_owned(),
        ),
        (
            "mutatingadmissionpolicies",
            patching("[1]"),
            "spec.mutations[0].jsonPatch.expression: Invalid value: \"[1]\": must evaluate to list(JSONPatch) but got list(int)".to_owned(),
        ),
    ] {
        let mut spec = spec;
        spec["matchConstraints"] = constraints.clone();
        if resource == "mutatingadmissionpolicies" {
            spec["reinvocationPolicy"] = "Never".into();
        }
        let policy = json!({"metadata": {"name": "p"}, "spec": spec});
        let (code, message) = world.ask("POST", &format!("{GROUP}/{resource}"), &policy).await.told();
        assert_eq!(code, 422, "{message}");
        assert!(message.ends_with(&want), "{message}");
    }
}

#[tokio::test]
async fn should_support_policy_api_operations() {
    let world = World::new().await;
    for (resource, spec) in [
        ("validatingadmissionpolicies", json!({"validations": [{"expression": "true"}]})),
        ("mutatingadmissionpolicies", applying("Object{spec: Object.spec{replicas: 100}}")),
    ] {
        let mut spec = spec;
        spec["matchConstraints"] = json!({"resourceRules": [rule("apps", "v1", "deployments")]});
        if resource == "mutatingadmissionpolicies" {
            spec["reinvocationPolicy"] = "Never".into();
        }
        let labels = json!({"test": "e2e"});
        let policy = json!({"metadata": {"generateName": "e2e-", "labels": labels}, "spec": spec});
        let path = format!("{GROUP}/{resource}");
        let made = world.make(&path, &policy).await;
        world.make(&path, &policy).await;
        let name = made["metadata"]["name"].as_str().expect("a name").to_owned();
        let patched = world.set(&format!("{path}/{name}"), &json!({"metadata": {"annotations": {"patched": "true"}}, "spec": {"failurePolicy": "Ignore"}})).await;
        assert_eq!(patched["spec"]["failurePolicy"], "Ignore");
        assert_eq!(patched["metadata"]["generation"], 2);
        let list = world
            .ask("GET", &format!("{path}?labelSelector=test%3De2e"), &Value::Null)
            .await
            .json();
        assert_eq!(list["items"].as_array().map(Vec::len), Some(2));
        let all =
            world.ask("DELETE", &format!("{path}?labelSelector=test%3De2e"), &Value::Null).await;
        assert_eq!(all.code, 200);
        let list = world.ask("GET", &path, &Value::Null).await.json();
        assert_eq!(list["items"].as_array().map(Vec::len), Some(0));
    }
}
