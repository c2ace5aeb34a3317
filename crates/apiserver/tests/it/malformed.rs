//! Thousands of requests that are wrong in some way: each gets a 4xx with a Status (or is fine after
//! all), never a 5xx, and nothing panics. The choice is random but the same in every run.

use serde_json::{Value, json};

use crate::harness::World;

const REQUESTS: usize = 5_000;

/// SplitMix64: small, and good enough to choose by.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

fn objects() -> Vec<(&'static str, Value)> {
    vec![
        (
            "/api/v1/namespaces/default/pods",
            json!({
                "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": {"a": "b"}, "ownerReferences": []},
                "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}], "resources": {"limits": {"cpu": "1"}}, "livenessProbe": {"httpGet": {"port": 80}}}], "tolerations": [{"key": "k", "operator": "Exists"}], "volumes": [{"name": "v", "emptyDir": {}}]},
            }),
        ),
        (
            "/apis/apps/v1/namespaces/default/deployments",
            json!({
                "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
                "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "strategy": {"rollingUpdate": {"maxSurge": "25%"}}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}},
            }),
        ),
        (
            "/api/v1/namespaces/default/services",
            json!({
                "apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"},
                "spec": {"ports": [{"port": 80, "targetPort": "x", "name": "p"}], "selector": {"a": "b"}, "type": "NodePort"},
            }),
        ),
        (
            "/api/v1/namespaces/default/secrets",
            json!({
                "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "t"}, "data": {"k": "eA=="}, "stringData": {"z": "y"},
            }),
        ),
        (
            "/apis/rbac.authorization.k8s.io/v1/clusterroles",
            json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "r"},
                "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}],
            }),
        ),
        (
            "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers",
            json!({
                "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"},
                "spec": {"maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}, "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 5}}}]},
            }),
        ),
        (
            "/apis/batch/v1/namespaces/default/cronjobs",
            json!({
                "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "j"},
                "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}}},
            }),
        ),
        (
            "/apis/networking.k8s.io/v1/namespaces/default/ingresses",
            json!({
                "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "i"},
                "spec": {"rules": [{"host": "a.b", "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "s", "port": {"number": 80}}}}]}}]},
            }),
        ),
        (
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
            json!({
                "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "gs.e.x"},
                "spec": {"group": "e.x", "scope": "Namespaced", "names": {"plural": "gs", "kind": "G"}, "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "x-kubernetes-validations": [{"rule": "true"}]}}}}}]},
            }),
        ),
        (
            "/api/v1/persistentvolumes",
            json!({
                "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "v"},
                "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/x"}},
            }),
        ),
    ]
}

/// Values that do not belong where they are put.
fn strange() -> Vec<Value> {
    vec![
        Value::Null,
        json!(true),
        json!(-1),
        json!(1.5),
        json!(9_223_372_036_854_775_807_i64),
        json!(18_446_744_073_709_551_615_u64),
        json!(""),
        json!("ü\u{0}\u{202e}"),
        json!("a".repeat(300)),
        json!("99999999999999999999Ei"),
        json!("-25%"),
        json!([]),
        json!([null]),
        json!([[[]]]),
        json!({}),
        json!({"": null}),
        json!({"name": {"name": {}}}),
    ]
}

/// Puts something strange somewhere.
fn distort(random: &mut Random, value: &mut Value, strange: &[Value]) {
    let deeper = random.below(4) != 0;
    match value {
        Value::Object(map) if deeper && !map.is_empty() => {
            let at = random.below(map.len());
            let below = map.values_mut().nth(at).expect("within");
            distort(random, below, strange);
        }
        Value::Array(list) if deeper && !list.is_empty() => {
            let at = random.below(list.len());
            distort(random, &mut list[at], strange);
        }
        Value::Object(map) if random.below(3) == 0 => {
            map.insert("bogus".into(), random.one(strange).clone());
        }
        other => *other = random.one(strange).clone(),
    }
}

/// Damages text: cut off, a byte changed, a part doubled.
fn damage(random: &mut Random, text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    match random.below(3) {
        0 => bytes.truncate(random.below(text.len())),
        1 => {
            let at = random.below(bytes.len());
            bytes[at] = random.next() as u8;
        }
        _ => {
            let at = random.below(bytes.len());
            let end = at + random.below(bytes.len() - at);
            let part = bytes[at..end].to_vec();
            bytes.splice(at..at, part);
        }
    }
    bytes
}

const UNTYPED: &str = "failed to create typed patch object";

const QUERIES: [&str; 12] = [
    "?limit=-1",
    "?limit=x",
    "?continue=%00",
    "?continue=e30",
    "?resourceVersion=abc",
    "?resourceVersion=99999999999999999999",
    "?labelSelector=a%20in%20(",
    "?fieldSelector=%5C",
    "?fieldValidation=Sometimes",
    "?dryRun=Maybe",
    "?resourceVersionMatch=Exact",
    "?%zz=%",
];

const TYPES: [&str; 7] = [
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "application/merge-patch+json",
    "application/json-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

#[tokio::test]
async fn no_request_makes_the_server_fail() {
    let world = World::new().await;
    let account =
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    world.ask("POST", "/api/v1/namespaces/default/serviceaccounts", &account).await;
    let (objects, strange) = (objects(), strange());
    for (path, object) in &objects {
        let made = world.ask("POST", path, object).await;
        assert!(made.code < 300, "{path}: {}", made.json());
    }
    let mut random = Random(36);
    for _ in 0..REQUESTS {
        let (collection, object) = random.one(&objects);
        let mut body = object.clone();
        for _ in 0..=random.below(2) {
            distort(&mut random, &mut body, &strange);
        }
        let mut bytes = body.to_string().into_bytes();
        if random.below(4) == 0 {
            bytes = damage(&mut random, &body.to_string());
        }
        let method = *random.one(&["POST", "PUT", "PATCH", "DELETE", "GET"]);
        let name = object["metadata"]["name"].as_str().unwrap_or("");
        let mut path = match random.below(8) {
            0 => format!("{collection}/{name}/status"),
            1 => format!("{collection}/{name}/scale"),
            2 => format!("{collection}/{}", ["..", "%2e", "a%00b", "UPPER", ""][random.below(5)]),
            _ if method == "POST" => (*collection).to_owned(),
            _ => format!("{collection}/{name}"),
        };
        if random.below(4) == 0 {
            path.push_str(random.one::<&str>(&QUERIES));
        }
        let kind = *random.one(&TYPES);
        let dry = if path.contains('?') {
            "&dryRun=All&fieldManager=m"
        } else {
            "?dryRun=All&fieldManager=m"
        };
        let target = format!("{path}{dry}");
        let headers = [("content-type", kind)];
        let shown = String::from_utf8_lossy(&bytes).into_owned();
        let answer = world.ask_as(&world.admin, (method, &target), &headers, bytes).await;
        let context = || format!("{method} {target} {kind}: {shown}\n{}", answer.json());
        // Upstream itself answers so when an applied object does not fit its schema.
        let untyped = answer.json()["message"].as_str().is_some_and(|m| m.starts_with(UNTYPED));
        assert!(answer.code < 500 || untyped, "{} {}", answer.code, context());
        if answer.code >= 400 {
            assert_eq!(answer.json()["kind"], "Status", "{}", context());
        }
    }
}
