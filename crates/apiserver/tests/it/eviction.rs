//! Evictions within budgets, and bindings of the pod that was meant.

use serde_json::{Value, json};

use crate::harness::World;

const PODS: &str = "/api/v1/namespaces/default/pods";
const BUDGETS: &str = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
const VIOLATED: &str = "Cannot evict pod as it would violate the pod's disruption budget.";

async fn world() -> World {
    let world = World::new().await;
    world
        .make(
            "/api/v1/namespaces/default/serviceaccounts",
            &json!({"metadata": {"name": "default"}}),
        )
        .await;
    world
}

async fn pod(world: &World, name: &str) -> Value {
    let pod = json!({"metadata": {"name": name, "labels": {"app": "a"}}, "spec": {"nodeName": "n1",
        "containers": [{"name": "c", "image": "i"}]}});
    world.make(PODS, &pod).await
}

async fn phase(world: &World, name: &str, phase: &str, ready: &str) {
    let status = json!({"status": {"phase": phase, "conditions": [
        {"type": "Ready", "status": ready}]}});
    world.set(&format!("{PODS}/{name}/status"), &status).await;
}

async fn budget(world: &World, name: &str, spec: Value, status: Value) {
    let mut budget = json!({"metadata": {"name": name}, "spec": {"minAvailable": 1,
        "selector": {"matchLabels": {"app": "a"}}}});
    for (key, value) in spec.as_object().into_iter().flatten() {
        budget["spec"][key] = value.clone();
    }
    world.make(BUDGETS, &budget).await;
    let mut full = json!({"observedGeneration": 1, "disruptionsAllowed": 0, "currentHealthy": 1,
        "desiredHealthy": 1, "expectedPods": 1});
    for (key, value) in status.as_object().into_iter().flatten() {
        full[key] = value.clone();
    }
    world.set(&format!("{BUDGETS}/{name}/status"), &json!({"status": full})).await;
}

async fn evict(world: &World, name: &str, query: &str, options: Value) -> (u16, String) {
    let path = format!("{PODS}/{name}/eviction{query}");
    let mut body =
        json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}});
    if !options.is_null() {
        body["deleteOptions"] = options;
    }
    let answer = world.ask("POST", &path, &body).await;
    let told = answer.json();
    let cause = told["details"]["causes"][0]["message"].as_str();
    (answer.code, cause.or(told["message"].as_str()).unwrap_or("").to_owned())
}

async fn allowed(world: &World, name: &str) -> i64 {
    let budget = world.ask("GET", &format!("{BUDGETS}/{name}"), &Value::Null).await.json();
    budget["status"]["disruptionsAllowed"].as_i64().expect("a number")
}

async fn is_going(world: &World, name: &str) -> bool {
    let found = world.ask("GET", &format!("{PODS}/{name}"), &Value::Null).await;
    found.code == 404 || found.json()["metadata"]["deletionTimestamp"].is_string()
}

#[tokio::test]
async fn an_eviction_spends_the_budget_once_and_says_so_on_the_pod() {
    let world = world().await;
    for name in ["p", "q"] {
        pod(&world, name).await;
        phase(&world, name, "Running", "True").await;
    }
    budget(&world, "b", json!({}), json!({"disruptionsAllowed": 1})).await;
    // Dry runs, wherever they are asked for, cost nothing.
    let dry = json!({"dryRun": ["All"]});
    assert_eq!(evict(&world, "p", "", dry.clone()).await.0, 201);
    assert_eq!(evict(&world, "p", "?dryRun=All", Value::Null).await.0, 201);
    assert_eq!(evict(&world, "p", "?dryRun=All", dry).await.0, 201);
    assert_eq!((allowed(&world, "b").await, is_going(&world, "p").await), (1, false));
    let odd = evict(&world, "p", "", json!({"dryRun": ["Some"]})).await;
    assert!(odd.0 == 422 && odd.1.contains("Unsupported value: \"Some\""), "{odd:?}");
    assert_eq!(allowed(&world, "b").await, 1);

    assert_eq!(evict(&world, "p", "", Value::Null).await.0, 201);
    assert_eq!((allowed(&world, "b").await, is_going(&world, "p").await), (0, true));
    let gone = world.ask("GET", &format!("{PODS}/p"), &Value::Null).await.json();
    let conditions = gone["status"]["conditions"].as_array().expect("conditions").clone();
    let target = conditions.iter().find(|c| c["type"] == "DisruptionTarget").expect("told");
    assert_eq!(
        (&target["reason"], &target["message"]),
        (&json!("EvictionByEvictionAPI"), &json!("Eviction API: evicting"))
    );

    let told = evict(&world, "q", "", Value::Null).await;
    assert_eq!(
        told,
        (429, "The disruption budget b needs 1 healthy pods and has 1 currently".into())
    );
    let answer =
        world.ask("POST", &format!("{PODS}/q/eviction"), &json!({"metadata": {"name": "q"}})).await;
    assert_eq!(answer.told(), (429, VIOLATED.into()));
    assert!(!is_going(&world, "q").await);
}

#[tokio::test]
async fn the_body_is_about_the_pod_of_the_path() {
    let world = world().await;
    pod(&world, "p").await;
    for body in [json!({"metadata": {"name": "q"}}), json!({"metadata": {}})] {
        let answer = world.ask("POST", &format!("{PODS}/p/eviction"), &body).await;
        let why = "name in URL does not match name in Eviction object";
        assert_eq!(answer.told(), (400, why.into()));
    }
    let body = json!({"metadata": {"name": "p", "namespace": "other"}});
    let answer = world.ask("POST", &format!("{PODS}/p/eviction"), &body).await;
    let why =
        "the namespace of the provided object does not match the namespace sent on the request";
    assert_eq!(answer.told(), (400, why.into()));
    let wrong = json!({"preconditions": {"uid": "other"}});
    let (code, told) = evict(&world, "p", "", wrong).await;
    assert!(code == 409 && told.contains("the UID in the precondition (other)"), "{told}");
    assert!(!is_going(&world, "p").await);
}

#[tokio::test]
async fn two_budgets_are_an_error() {
    let world = world().await;
    pod(&world, "p").await;
    phase(&world, "p", "Running", "True").await;
    for name in ["a", "b"] {
        budget(&world, name, json!({}), json!({"disruptionsAllowed": 5})).await;
    }
    let why = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
    assert_eq!(evict(&world, "p", "", Value::Null).await, (500, why.into()));
    assert_eq!((allowed(&world, "a").await, allowed(&world, "b").await), (5, 5));
    // Who has not begun, or has ended, is no matter of budgets.
    phase(&world, "p", "Failed", "False").await;
    assert_eq!(evict(&world, "p", "", Value::Null).await.0, 201);
    assert!(is_going(&world, "p").await);
}

#[tokio::test]
async fn unready_pods_go_when_the_budget_is_met_or_the_policy_says_so() {
    let world = world().await;
    for name in ["p", "q", "r"] {
        pod(&world, name).await;
        phase(&world, name, "Running", "False").await;
    }
    budget(&world, "met", json!({}), json!({})).await;
    assert_eq!(evict(&world, "p", "", Value::Null).await.0, 201);
    assert_eq!(allowed(&world, "met").await, 0, "nothing is spent");
    world.set(&format!("{BUDGETS}/met/status"), &json!({"status": {"currentHealthy": 0}})).await;
    let why = "The disruption budget met needs 1 healthy pods and has 0 currently";
    assert_eq!(evict(&world, "q", "", Value::Null).await, (429, why.into()));
    let always = json!({"spec": {"unhealthyPodEvictionPolicy": "AlwaysAllow"}});
    world.set(&format!("{BUDGETS}/met"), &always).await;
    assert_eq!(evict(&world, "q", "", Value::Null).await.0, 201);
    // The controller has not seen the change yet.
    phase(&world, "r", "Running", "True").await;
    let why = "The disruption budget met is still being processed by the server.";
    assert_eq!(evict(&world, "r", "", Value::Null).await, (429, why.into()));
}

fn binding(name: &str, more: Value) -> Value {
    let mut binding = json!({"metadata": {"name": name}, "target": {"kind": "Node", "name": "n1"}});
    for (key, value) in more.as_object().into_iter().flatten() {
        for (inner, value) in value.as_object().into_iter().flatten() {
            binding[key][inner] = value.clone();
        }
    }
    binding
}

#[tokio::test]
async fn a_binding_is_of_the_pod_that_was_meant() {
    let world = world().await;
    let unbound =
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let made = world.make(PODS, &unbound).await;
    let path = format!("{PODS}/p/binding");
    let uid = made["metadata"]["uid"].as_str().expect("a uid");
    let precondition = |what: &str, asked: &str, found: &str| {
        format!(
            "Operation cannot be fulfilled on pods \"p\": StorageError: invalid object, Code: 4, Key: /registry/pods/default/p, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: {what} in precondition: {asked}, {what} in object meta: {found}"
        )
    };
    let revision = made["metadata"]["resourceVersion"].as_str().expect("a revision");
    let namespaces =
        "the namespace of the provided object does not match the namespace sent on the request";
    for (body, wanted) in [
        (
            binding("q", json!({})),
            (400, "name in URL does not match name in Binding object".to_owned()),
        ),
        (binding("p", json!({"metadata": {"namespace": "x"}})), (400, namespaces.into())),
        (binding("p", json!({"metadata": {"uid": "x"}})), (409, precondition("UID", "x", uid))),
        (
            binding("p", json!({"metadata": {"resourceVersion": "1"}})),
            (409, precondition("ResourceVersion", "1", revision)),
        ),
        (
            binding("p", json!({"target": {"kind": "Pod"}})),
            (
                500,
                "target.kind: Unsupported value: \"Pod\": supported values: \"Node\", \"<empty>\""
                    .into(),
            ),
        ),
        (
            binding("p", json!({"target": {"name": ""}})),
            (500, "target.name: Required value".into()),
        ),
    ] {
        assert_eq!(world.ask("POST", &path, &body).await.told(), wanted, "{body}");
    }
    let good = binding("p", json!({"metadata": {"uid": uid, "labels": {"zone": "z"}}}));
    assert_eq!(world.ask("POST", &path, &good).await.code, 201);
    let bound = world.ask("GET", &format!("{PODS}/p"), &Value::Null).await.json();
    assert_eq!(
        (&bound["spec"]["nodeName"], &bound["metadata"]["labels"]["zone"]),
        (&json!("n1"), &json!("z"))
    );
    let again = world.ask("POST", &path, &good).await.told();
    let why = "Operation cannot be fulfilled on pods/binding \"p\": pod p is already assigned to node \"n1\"";
    assert_eq!(again, (409, why.into()));
}

#[tokio::test]
async fn gated_pods_are_not_bound() {
    let world = world().await;
    let gated = json!({"metadata": {"name": "g"}, "spec": {"schedulingGates": [{"name": "example.com/g"}],
        "containers": [{"name": "c", "image": "i"}]}});
    world.make(PODS, &gated).await;
    let told =
        world.ask("POST", &format!("{PODS}/g/binding"), &binding("g", json!({}))).await.told();
    let why = "Operation cannot be fulfilled on pods/binding \"g\": pod g has non-empty .spec.schedulingGates";
    assert_eq!(told, (409, why.into()));
}

#[tokio::test]
async fn old_clients_evict_in_the_version_they_know() {
    let world = world().await;
    let body = |version: &str| json!({"apiVersion": version, "kind": "Eviction", "metadata": {"name": "a"}});
    pod(&world, "a").await;
    let path = format!("{PODS}/a/eviction");
    let refused = world.ask("POST", &path, &body("policy/v1alpha1")).await;
    assert_eq!(refused.code, 400, "{}", refused.json());
    let evicted = world.ask("POST", &path, &body("policy/v1beta1")).await;
    assert_eq!(evicted.code, 201, "{}", evicted.json());
}
