//! Who may ask for what.

use apiserver::User;
use serde_json::{Value, json};

use crate::harness::World;

const POD: &str = "/api/v1/namespaces/default/pods";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// Kubelets ask for what their pods refer to by a list of one name.
#[tokio::test]
async fn a_node_lists_what_its_pods_refer_to_and_nothing_else() {
    let world = World::new().await;
    for name in ["mine", "other"] {
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
        assert_eq!(world.ask("POST", MAPS, &map).await.code, 201);
    }
    let account =
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    world.ask("POST", "/api/v1/namespaces/default/serviceaccounts", &account).await;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {
            "nodeName": "n1", "containers": [{"name": "c", "image": "i"}],
            "volumes": [{"name": "v", "configMap": {"name": "mine"}}],
        },
    });
    let made = world.ask("POST", POD, &pod).await;
    assert_eq!(made.code, 201, "{}", made.json());
    let node = User::new("system:node:n1", &["system:nodes", "system:authenticated"]);
    for (query, code) in [
        ("?fieldSelector=metadata.name%3Dmine", 200),
        ("?fieldSelector=metadata.name%3Dmine&watch=true&timeoutSeconds=1&resourceVersion=1", 200),
        ("?fieldSelector=metadata.name%3Dother", 403),
        ("", 403),
    ] {
        let path = format!("{MAPS}{query}");
        // A watch that is allowed would go on: its head is enough.
        let request =
            http::Request::get(&path).body(http_body_util::Full::<bytes::Bytes>::default());
        let answer = world.server.serve_as(node.clone(), request.expect("a request")).await;
        assert_eq!(answer.status().as_u16(), code, "{path}");
    }
}

#[tokio::test]
async fn nobody_reads_secrets_without_a_role() {
    let world = World::new().await;
    let user = User::new("eve", &["system:authenticated"]);
    let answer = world.ask_as(&user, ("GET", "/api/v1/secrets"), &[], "").await;
    assert_eq!(answer.code, 403);
    let status: Value = answer.json();
    assert_eq!(status["reason"], "Forbidden");
    assert_eq!(
        status["message"],
        "secrets is forbidden: User \"eve\" cannot list resource \"secrets\" in API group \"\" at the cluster scope"
    );
}

#[tokio::test]
async fn reviews_say_which_binding_allows_and_what_is_lost() {
    let world = World::new().await;
    let rules = json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]);
    world.grant("jane", &rules).await;
    let review = |user: &str, verb: &str| json!({"spec": {"user": user, "resourceAttributes": {"verb": verb, "resource": "pods"}}});
    let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    let told = world.make(path, &review("jane", "get")).await["status"].clone();
    let by =
        "RBAC: allowed by ClusterRoleBinding \"jane\" of ClusterRole \"jane\" to User \"jane\"";
    assert_eq!(told, json!({"allowed": true, "reason": by}));
    assert_eq!(
        world.make(path, &review("jane", "list")).await["status"],
        json!({"allowed": false})
    );
    let roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles/jane";
    assert_eq!(world.ask("DELETE", roles, &Value::Null).await.code, 200);
    let lost = "RBAC: clusterrole.rbac.authorization.k8s.io \"jane\" not found";
    let told = world.make(path, &review("jane", "get")).await["status"].clone();
    assert_eq!(told, json!({"allowed": false, "reason": lost}));
    let jane = User::new("jane", &["system:authenticated"]);
    let answer = world.ask_as(&jane, ("GET", "/api/v1/pods"), &[], "").await;
    let why = "pods is forbidden: User \"jane\" cannot list resource \"pods\" in API group \"\" at the cluster scope";
    assert_eq!(answer.told(), (403, format!("{why}: {lost}")));
}
