//! Requests on behalf of others.

use apiserver::User;
use serde_json::{Value, json};

use crate::harness::{Answer, World};

const WHO: (&str, &str) = ("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews");
const JSON: (&str, &str) = ("content-type", "application/json");

async fn who(world: &World, user: &User, headers: &[(&str, &str)]) -> Answer {
    let mut all = vec![JSON];
    all.extend(headers);
    world.ask_as(user, WHO, &all, "{}").await
}

fn info(answer: &Answer) -> Value {
    assert_eq!(answer.code, 201, "{}", answer.json());
    answer.json()["status"]["userInfo"].clone()
}

async fn jane(rules: &Value) -> (World, User) {
    let world = World::new().await;
    world.grant("jane", rules).await;
    (world, User::new("jane", &["system:authenticated"]))
}

#[tokio::test]
async fn an_administrator_is_whoever_the_headers_name() {
    let world = World::new().await;
    let headers = [
        ("impersonate-user", "grüße"),
        ("impersonate-group", "a"),
        ("impersonate-group", "b"),
        ("impersonate-uid", "7"),
        ("impersonate-extra-acme.com%2Fproject", "x"),
        ("impersonate-extra-acme.com%2Fproject", "y"),
    ];
    let found = info(&who(&world, &world.admin, &headers).await);
    let wanted = json!({"username": "grüße", "uid": "7", "groups": ["a", "b", "system:authenticated"],
        "extra": {"acme.com/project": ["x", "y"]}});
    assert_eq!(found, wanted);
    for (name, groups) in [
        ("system:node:n1", json!(["system:nodes", "system:authenticated"])),
        (
            "system:serviceaccount:ns:a",
            json!(["system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated"]),
        ),
    ] {
        let found = info(&who(&world, &world.admin, &[("impersonate-user", name)]).await);
        assert_eq!(found["groups"], groups, "{name}");
    }
    // Nobody outside is made an authenticated user on the way.
    for headers in [
        vec![("impersonate-user", "system:anonymous")],
        vec![("impersonate-user", "u"), ("impersonate-group", "system:unauthenticated")],
    ] {
        let (code, text) = who(&world, &world.admin, &headers).await.told();
        let told = format!("User {:?} cannot create resource \"selfsubjectreviews\"", headers[0].1);
        assert!(code == 403 && text.contains(&told), "{text}");
    }
}

/// Nobody runs as themselves who asked to be another.
#[tokio::test]
async fn companions_without_a_user_and_unreadable_headers_are_refused() {
    let world = World::new().await;
    let told = |groups: &str, uid: &str, extra: &str| {
        (
            400,
            format!(
                "requested &user.DefaultInfo{{Name:\"\", UID:{uid:?}, Groups:{groups}, Extra:{extra}}} without impersonating a user name"
            ),
        )
    };
    let (no_groups, no_extra) = ("[]string(nil)", "map[string][]string(nil)");
    for (headers, wanted) in [
        (vec![("impersonate-group", "g")], told("[]string{\"g\"}", "", no_extra)),
        (vec![("impersonate-uid", "7")], told(no_groups, "7", no_extra)),
        (
            vec![("impersonate-extra-k", "v")],
            told(no_groups, "", "map[string][]string{\"k\":[]string{\"v\"}}"),
        ),
        (vec![("impersonate-user", "")], told(no_groups, "", no_extra)),
        (
            vec![("impersonate-user", ""), ("impersonate-group", "g")],
            told("[]string{\"g\"}", "", no_extra),
        ),
    ] {
        assert_eq!(who(&world, &world.admin, &headers).await.told(), wanted, "{headers:?}");
    }
    for name in ["impersonate-user", "impersonate-group", "impersonate-uid", "impersonate-extra-a"]
    {
        let value = http::HeaderValue::from_bytes(b"\xff\xfe").expect("bytes");
        let mut request = http::Request::builder().method("POST").uri(WHO.1);
        if name != "impersonate-user" {
            request = request.header("impersonate-user", "u");
        }
        let request = request
            .header(name, value)
            .body(http_body_util::Full::<bytes::Bytes>::default())
            .expect("a request");
        let response = world.server.serve_as(world.admin.clone(), request).await;
        assert_eq!(response.status().as_u16(), 400, "{name}");
    }
}

#[tokio::test]
async fn each_part_of_another_is_a_right_of_its_own() {
    let (world, jane) = jane(&json!([
        {"verbs": ["impersonate"], "apiGroups": [""], "resources": ["users"],
            "resourceNames": ["bob"]},
        {"verbs": ["impersonate"], "apiGroups": [""], "resources": ["groups"],
            "resourceNames": ["people"]},
        {"verbs": ["impersonate"], "apiGroups": ["authentication.k8s.io"],
            "resources": ["userextras/scopes"], "resourceNames": ["view"]},
        {"verbs": ["impersonate"], "apiGroups": ["authentication.k8s.io"], "resources": ["uids"],
            "resourceNames": ["7"]},
    ]))
    .await;
    let bob = ("impersonate-user", "bob");
    let all = [
        bob,
        ("impersonate-group", "people"),
        ("impersonate-extra-scopes", "view"),
        ("impersonate-uid", "7"),
    ];
    assert_eq!(info(&who(&world, &jane, &all).await)["username"], "bob");
    for more in [
        ("impersonate-user", "eve"),
        ("impersonate-group", "system:masters"),
        ("impersonate-extra-scopes", "admin"),
        ("impersonate-extra-other", "view"),
        ("impersonate-uid", "8"),
        ("impersonate-user", "system:serviceaccount:kube-system:a"),
        ("impersonate-user", "system:node:n1"),
    ] {
        let headers = if more.0 == "impersonate-user" { vec![more] } else { vec![bob, more] };
        let refused = who(&world, &jane, &headers).await;
        assert_eq!(refused.code, 403, "{headers:?} {}", refused.json());
    }
    // What is told is the first of the ways that are tried, in v1.36 a constrained one.
    let refused = who(&world, &jane, &[("impersonate-user", "eve")]).await;
    let why = "selfsubjectreviews.authentication.k8s.io is forbidden: User \"jane\" cannot impersonate-on:user-info:create resource \"selfsubjectreviews\" in API group \"authentication.k8s.io\" at the cluster scope";
    assert_eq!(refused.told(), (403, why.into()));
}

#[tokio::test]
async fn accounts_are_asked_for_as_accounts_of_their_namespace() {
    let (world, jane) = jane(&json!([
        {"verbs": ["impersonate"], "apiGroups": [""], "resources": ["users"]}]))
    .await;
    let account = [("impersonate-user", "system:serviceaccount:ns:a")];
    assert_eq!(who(&world, &jane, &account).await.code, 403, "not by the right to users");
    let role = json!({"metadata": {"name": "more"}, "rules": [
        {"verbs": ["impersonate"], "apiGroups": [""], "resources": ["serviceaccounts"]}]});
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/ns";
    world.make("/api/v1/namespaces", &json!({"metadata": {"name": "ns"}})).await;
    world.make(&format!("{rbac}/roles"), &role).await;
    let group = "rbac.authorization.k8s.io";
    let binding = json!({"metadata": {"name": "more"},
        "roleRef": {"apiGroup": group, "kind": "Role", "name": "more"},
        "subjects": [{"kind": "User", "name": "jane", "apiGroup": group}]});
    world.make(&format!("{rbac}/rolebindings"), &binding).await;
    let found = info(&who(&world, &jane, &account).await);
    assert_eq!(found["groups"][1], "system:serviceaccounts:ns");
    let other = [("impersonate-user", "system:serviceaccount:kube-system:a")];
    assert_eq!(who(&world, &jane, &other).await.code, 403);
}

/// KEP-5284: being another for some requests only.
#[tokio::test]
async fn constrained_impersonation_is_for_named_requests() {
    let (world, jane) = jane(&json!([
        {"verbs": ["impersonate:user-info"], "apiGroups": ["authentication.k8s.io"],
            "resources": ["users", "groups"]},
        {"verbs": ["impersonate-on:user-info:create"], "apiGroups": ["authentication.k8s.io"],
            "resources": ["selfsubjectreviews"]},
    ]))
    .await;
    let bob = ("impersonate-user", "bob");
    assert_eq!(info(&who(&world, &jane, &[bob]).await)["username"], "bob");
    let masters = [bob, ("impersonate-group", "system:masters")];
    let why = "groups.authentication.k8s.io \"system:masters\" is forbidden: User \"jane\" cannot impersonate:user-info resource \"groups\" in API group \"authentication.k8s.io\" at the cluster scope: impersonating the system:masters group is not allowed";
    assert_eq!(who(&world, &jane, &masters).await.told(), (403, why.into()));
    let pods = ("GET", "/api/v1/pods");
    let refused = world.ask_as(&jane, pods, &[bob], "").await;
    let why = "pods is forbidden: User \"jane\" cannot impersonate-on:user-info:list resource \"pods\" in API group \"\" at the cluster scope";
    assert_eq!(refused.told(), (403, why.into()));
    assert_eq!(who(&world, &jane, &[("impersonate-user", "system:node:n1")]).await.code, 403);
}
