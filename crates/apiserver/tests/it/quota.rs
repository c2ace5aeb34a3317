//! Quotas under concurrency: what is admitted is exactly what fits.

use std::sync::Arc;
use std::time::Duration;

use apiserver::{Local, User};
use client::{Client, Informers, Tasks};
use serde_json::{Value, json};

use crate::harness::World;

const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";
const PODS: &str = "/api/v1/namespaces/default/pods";

fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

/// A world with a quota whose status says what the controller would.
async fn world(hard: &Value, used: &Value) -> World {
    let world = uncounted(hard).await;
    count(&world, hard, used).await;
    world
}

async fn uncounted(hard: &Value) -> World {
    let world = World::new().await;
    let account =
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    world.ask("POST", "/api/v1/namespaces/default/serviceaccounts", &account).await;
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"},
        "spec": {"hard": hard}});
    let made = world.ask("POST", QUOTAS, &quota).await;
    assert_eq!(made.code, 201, "{}", made.json());
    world
}

async fn count(world: &World, hard: &Value, used: &Value) {
    let path = format!("{QUOTAS}/q");
    let mut quota = world.ask("GET", &path, &Value::Null).await.json();
    quota["status"] = json!({"hard": hard, "used": used});
    let counted = world.ask("PUT", &format!("{path}/status"), &quota).await;
    assert_eq!(counted.code, 200, "{}", counted.json());
}

async fn used(world: &World) -> Value {
    world.ask("GET", &format!("{QUOTAS}/q"), &Value::Null).await.json()["status"]["used"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_creations_get_exactly_what_fits() {
    let hard = json!({"pods": "10", "count/pods": "50"});
    let world = Arc::new(world(&hard, &json!({"pods": "0", "count/pods": "0"})).await);
    let mut creations = Vec::new();
    for n in 0..40 {
        let world = world.clone();
        creations.push(tokio::spawn(async move {
            // Others write the quota, too, and must not make a charge get lost.
            let patch = json!({"metadata": {"labels": {"n": n.to_string()}}}).to_string();
            let headers = [("content-type", "application/merge-patch+json")];
            let path = format!("{QUOTAS}/q");
            let patched = world.ask_as(&world.admin, ("PATCH", &path), &headers, patch);
            let name = format!("p{n}");
            let pod = pod(&name);
            let (_, made) = tokio::join!(patched, world.ask("POST", PODS, &pod));
            (made.code, made.json()["message"].as_str().unwrap_or("").to_owned())
        }));
    }
    let mut admitted = 0;
    for creation in creations {
        match creation.await.expect("no panic") {
            (201, _) => admitted += 1,
            (403, why) => assert!(
                why.ends_with(
                    "exceeded quota: q, requested: pods=1, used: pods=10, limited: pods=10"
                ),
                "{why}"
            ),
            other => panic!("{other:?}"),
        }
    }
    let stored = world.ask("GET", PODS, &Value::Null).await.json();
    assert_eq!(stored["items"].as_array().map(Vec::len), Some(10));
    assert_eq!(admitted, 10);
    assert_eq!(used(&world).await, json!({"pods": "10", "count/pods": "10"}));
}

#[tokio::test]
async fn nothing_is_charged_for_what_is_not_stored() {
    let hard = json!({"pods": "2", "services.nodeports": "1"});
    let world = world(&hard, &json!({"pods": "0"})).await;
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"},
        "spec": {"type": "NodePort", "ports": [{"port": 80}]}});
    let services = "/api/v1/namespaces/default/services";
    let refused = world.ask("POST", services, &service).await;
    let told =
        "services \"s\" is forbidden: status unknown for quota: q, resources: services.nodeports";
    assert_eq!((refused.code, refused.json()["message"].as_str()), (403, Some(told)));
    count(&world, &hard, &json!({"pods": "0", "services.nodeports": "0"})).await;

    assert_eq!(world.ask("POST", &format!("{PODS}?dryRun=All"), &pod("a")).await.code, 201);
    assert_eq!(used(&world).await["pods"], "0");
    assert_eq!(world.ask("POST", PODS, &pod("a")).await.code, 201);
    assert_eq!(world.ask("POST", PODS, &pod("a")).await.code, 409);
    assert_eq!(
        world
            .ask(
                "POST",
                PODS,
                &json!({"kind": "Pod", "apiVersion": "v1",
        "metadata": {"name": "b"}, "spec": {"containers": []}})
            )
            .await
            .code,
        422
    );
    assert_eq!(used(&world).await["pods"], "1");
    // A refused service gives back its ports, and a change of type is charged.
    assert_eq!(world.ask("POST", services, &service).await.code, 201);
    let second = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "t"},
        "spec": {"ports": [{"port": 80}]}});
    assert_eq!(world.ask("POST", services, &second).await.code, 201);
    let path = format!("{services}/t");
    let patch = json!({"spec": {"type": "NodePort"}}).to_string();
    let headers = [("content-type", "application/merge-patch+json")];
    let refused = world.ask_as(&world.admin, ("PATCH", &path), &headers, patch).await;
    assert_eq!(refused.code, 403, "{}", refused.json());
}

/// The controller of quotas alone, in front of the server.
fn count_continuously(world: &World, tasks: &Tasks) {
    let masters = User::new("system:kube-controller-manager", &["system:masters"]);
    let local = Local::new(world.server.clone(), masters, "controllers", tasks.clone());
    let informers = Informers::new(Client::new(Arc::new(local)), tasks.clone());
    let only = vec!["resourcequota".to_owned()];
    let config = controllers::Config { controllers: only, ..controllers::Config::default() };
    controllers::run(&informers, tasks, config).expect("a known name");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn coming_and_going_never_exceeds_the_quota() {
    const LIMIT: usize = 3;
    let hard = json!({"pods": LIMIT.to_string()});
    let world = Arc::new(uncounted(&hard).await);
    let tasks = Tasks::new();
    count_continuously(&world, &tasks);
    let counted = |_: &str, quota: &Value| quota["status"]["used"]["pods"] == "0";
    world.until(&format!("{QUOTAS}?watch=true"), counted).await;
    let mut workers = Vec::new();
    for worker in 0..8 {
        let world = world.clone();
        workers.push(tokio::spawn(async move {
            let mut made = 0;
            for n in 0..40 {
                let name = format!("p{worker}-{n}");
                if world.ask("POST", PODS, &pod(&name)).await.code != 201 {
                    continue;
                }
                made += 1;
                let there = world.ask("GET", PODS, &Value::Null).await.json();
                assert!(there["items"].as_array().is_some_and(|all| all.len() <= LIMIT));
                let gone = world.ask("DELETE", &format!("{PODS}/{name}"), &Value::Null).await;
                assert_eq!(gone.code, 200, "{}", gone.json());
            }
            made
        }));
    }
    let mut made = 0;
    for worker in workers {
        made += worker.await.expect("no panic");
    }
    assert!(made >= LIMIT, "{made}");
    // All is given back as it goes, sooner than a recount (ten seconds) would correct it.
    let path = format!("{QUOTAS}?watch=true");
    let free = tokio::time::timeout(Duration::from_secs(8), world.until(&path, counted));
    free.await.expect("what goes is given back");
    for n in 0..=LIMIT {
        let code = world.ask("POST", PODS, &pod(&format!("last{n}"))).await.code;
        assert_eq!(code, if n < LIMIT { 201 } else { 403 });
    }
    tasks.shutdown().await;
}
