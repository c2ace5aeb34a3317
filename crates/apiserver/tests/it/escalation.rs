//! Nobody grants by roles and bindings what they do not hold.

use apiserver::User;
use serde_json::{Value, json};

use crate::harness::World;

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const GROUP: &str = "rbac.authorization.k8s.io";

/// Jane writes roles and bindings everywhere, and reads pods.
async fn world() -> (World, User) {
    let world = World::new().await;
    let rules = json!([
        {"verbs": ["create", "update", "patch"], "apiGroups": [GROUP],
            "resources": ["roles", "clusterroles", "rolebindings", "clusterrolebindings"]},
        {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]},
    ]);
    world.grant("jane", &rules).await;
    (world, User::new("jane", &["system:authenticated"]))
}

fn role(name: &str, rules: Value) -> Value {
    json!({"metadata": {"name": name}, "rules": rules})
}

fn binding(name: &str, kind: &str, role: &str) -> Value {
    json!({
        "metadata": {"name": name}, "roleRef": {"apiGroup": GROUP, "kind": kind, "name": role},
        "subjects": [{"kind": "User", "name": "jane", "apiGroup": GROUP}],
    })
}

fn secrets() -> Value {
    json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"]}])
}

fn pods() -> Value {
    json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}])
}

fn told(subject: &str, missing: &str) -> (u16, String) {
    let text = format!(
        "{subject} is forbidden: user \"jane\" (groups=[\"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n{missing}"
    );
    (403, text)
}

const SECRETS: &str = "{APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\"]}";

#[tokio::test]
async fn roles_hold_no_more_than_their_writer_does() {
    let (world, jane) = world().await;
    let local = format!("{RBAC}/namespaces/default/roles");
    for (path, kind) in [(local.clone(), "roles"), (format!("{RBAC}/clusterroles"), "clusterroles")]
    {
        let subject = format!("{kind}.{GROUP} \"x\"");
        let refused = world.ask_by(&jane, ("POST", &path), &role("x", secrets())).await;
        assert_eq!(refused.told(), told(&subject, SECRETS));
        // PUT and apply create as well.
        let named = format!("{path}/x");
        let refused = world.ask_by(&jane, ("PUT", &named), &role("x", secrets())).await;
        assert_eq!(refused.told(), told(&subject, SECRETS));
        let body = json!({"apiVersion": format!("{GROUP}/v1"),
            "kind": if kind == "roles" { "Role" } else { "ClusterRole" },
            "metadata": {"name": "x"}, "rules": secrets()});
        let apply = [("content-type", "application/apply-patch+yaml")];
        let applied = format!("{named}?fieldManager=j&force=true");
        let refused = world.ask_as(&jane, ("PATCH", &applied), &apply, body.to_string()).await;
        assert_eq!(refused.told(), told(&subject, SECRETS));
        // A role within her rights is hers to write, and not to widen.
        let made = world.ask_by(&jane, ("POST", &path), &role("x", pods())).await;
        assert_eq!(made.code, 201, "{}", made.json());
        let wider = json!({"rules": secrets()});
        for (method, body) in [("PATCH", &wider), ("PUT", &role("x", secrets()))] {
            let refused = world.ask_by(&jane, (method, &named), body).await;
            assert_eq!(refused.told(), told(&subject, SECRETS), "{method}");
        }
        let refused = world.ask_as(&jane, ("PATCH", &applied), &apply, body.to_string()).await;
        assert_eq!(refused.code, 403, "{}", refused.json());
    }
}

#[tokio::test]
async fn a_wide_role_of_others_is_touched_only_for_the_garbage_collector() {
    let (world, jane) = world().await;
    let path = format!("{RBAC}/clusterroles");
    world.make(&path, &role("wide", secrets())).await;
    let named = format!("{path}/wide");
    let subject = format!("clusterroles.{GROUP} \"wide\"");
    let labelled = json!({"metadata": {"labels": {"a": "b"}}});
    let refused = world.ask_by(&jane, ("PATCH", &named), &labelled).await;
    assert_eq!(refused.told(), told(&subject, SECRETS));
    let collected = json!({"metadata": {"finalizers": ["example.com/x"]}});
    let done = world.ask_by(&jane, ("PATCH", &named), &collected).await;
    assert_eq!(done.code, 200, "{}", done.json());
}

#[tokio::test]
async fn aggregation_needs_everything() {
    let (world, jane) = world().await;
    let path = format!("{RBAC}/clusterroles");
    let gathering = json!({"metadata": {"name": "x"}, "aggregationRule":
        {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}});
    let refused = world.ask_by(&jane, ("POST", &path), &gathering).await;
    let why = format!(
        "clusterroles.{GROUP} \"x\" is forbidden: must have cluster-admin privileges to use the aggregationRule"
    );
    assert_eq!(refused.told(), (403, why.clone()));
    world.make(&path, &gathering).await;
    // Neither changed nor taken away by somebody who holds less.
    for patch in [json!({"metadata": {"labels": {"a": "b"}}}), json!({"aggregationRule": null})] {
        let refused = world.ask_by(&jane, ("PATCH", &format!("{path}/x")), &patch).await;
        assert_eq!(refused.told(), (403, why.clone()));
    }
}

#[tokio::test]
async fn bindings_give_no_more_than_their_writer_holds() {
    let (world, jane) = world().await;
    let roles = format!("{RBAC}/namespaces/default/roles");
    world.make(&roles, &role("wide", secrets())).await;
    world.make(&format!("{RBAC}/clusterroles"), &role("wide", secrets())).await;
    world.make(&format!("{RBAC}/clusterroles"), &role("narrow", pods())).await;
    let local = format!("{RBAC}/namespaces/default/rolebindings");
    let everywhere = format!("{RBAC}/clusterrolebindings");
    for (path, kind, of) in [
        (&local, "rolebindings", "Role"),
        (&local, "rolebindings", "ClusterRole"),
        (&everywhere, "clusterrolebindings", "ClusterRole"),
    ] {
        let subject = format!("{kind}.{GROUP} \"b\"");
        let refused = world.ask_by(&jane, ("POST", path), &binding("b", of, "wide")).await;
        assert_eq!(refused.told(), told(&subject, SECRETS));
        let named = format!("{path}/b");
        let refused = world.ask_by(&jane, ("PUT", &named), &binding("b", of, "wide")).await;
        assert_eq!(refused.told(), told(&subject, SECRETS));
    }
    let all = binding("b", "ClusterRole", "cluster-admin");
    assert_eq!(world.ask_by(&jane, ("POST", &everywhere), &all).await.code, 403);
    let lost = binding("b", "ClusterRole", "no");
    let missing = world.ask_by(&jane, ("POST", &everywhere), &lost).await;
    let why = format!("clusterroles.{GROUP} \"no\" not found");
    assert_eq!(missing.told(), (404, why));
    let narrow = binding("b", "ClusterRole", "narrow");
    assert_eq!(world.ask_by(&jane, ("POST", &everywhere), &narrow).await.code, 201);
    // Another subject in somebody's binding is as much as a new one.
    let mut theirs = binding("theirs", "ClusterRole", "wide");
    theirs["subjects"][0]["name"] = "bob".into();
    world.make(&local, &theirs).await;
    let more = json!({"subjects": [{"kind": "Group", "name": "all", "apiGroup": GROUP}]});
    let refused = world.ask_by(&jane, ("PATCH", &format!("{local}/theirs")), &more).await;
    let subject = format!("rolebindings.{GROUP} \"theirs\"");
    assert_eq!(refused.told(), told(&subject, SECRETS));
}

#[tokio::test]
async fn who_may_escalate_or_bind_a_role_is_not_asked() {
    let (world, jane) = world().await;
    let rules = json!([
        {"verbs": ["escalate"], "apiGroups": [GROUP], "resources": ["clusterroles"],
            "resourceNames": ["x"]},
        {"verbs": ["bind"], "apiGroups": [GROUP], "resources": ["clusterroles"],
            "resourceNames": ["view"]},
    ]);
    let path = format!("{RBAC}/clusterroles");
    world.make(&path, &role("more", rules)).await;
    world
        .make(&format!("{RBAC}/clusterrolebindings"), &binding("more", "ClusterRole", "more"))
        .await;
    world.make(&path, &role("x", pods())).await;
    let wider = json!({"rules": secrets()});
    let done = world.ask_by(&jane, ("PATCH", &format!("{path}/x")), &wider).await;
    assert_eq!(done.code, 200, "{}", done.json());
    let local = format!("{RBAC}/namespaces/default/rolebindings");
    let made = world.ask_by(&jane, ("POST", &local), &binding("v", "ClusterRole", "view")).await;
    assert_eq!(made.code, 201, "{}", made.json());
    let refused = world.ask_by(&jane, ("POST", &local), &binding("e", "ClusterRole", "edit")).await;
    assert_eq!(refused.code, 403);
}

#[tokio::test]
async fn a_lost_role_is_told_beside_the_refusal() {
    let (world, jane) = world().await;
    world
        .make(&format!("{RBAC}/clusterrolebindings"), &binding("lost", "ClusterRole", "gone"))
        .await;
    let path = format!("{RBAC}/clusterroles");
    let refused = world.ask_by(&jane, ("POST", &path), &role("x", secrets())).await;
    let missing =
        format!("{SECRETS}; resolution errors: [clusterroles.{GROUP} \"gone\" not found]");
    assert_eq!(refused.told(), told(&format!("clusterroles.{GROUP} \"x\""), &missing));
}
