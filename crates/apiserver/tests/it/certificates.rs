//! Who may approve and sign certificate requests, and what they may not ask for.

use apiserver::User;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rcgen::{CertificateParams, DnType, KeyPair};
use serde_json::{Value, json};

use crate::harness::{Answer, World};

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
const SIGNER: &str = "kubernetes.io/kube-apiserver-client";
const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
const BINDINGS: &str = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";

fn request(name: &str, organization: &str) -> Value {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "jane");
    params.distinguished_name.push(DnType::OrganizationName, organization);
    let key = KeyPair::generate().expect("a key");
    let pem = params.serialize_request(&key).and_then(|r| r.pem()).expect("a request");
    json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
        "metadata": {"name": name}, "spec": {"request": BASE64_STANDARD.encode(pem),
        "signerName": SIGNER, "usages": ["client auth"]}})
}

/// Jane may write all requests, and `verbs` on signers of this name.
async fn rights(world: &World, verbs: &[&str], signer: &str) {
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": "jane"}, "rules": [
            {"apiGroups": ["certificates.k8s.io"], "verbs": ["*"], "resources": [
                "certificatesigningrequests", "certificatesigningrequests/approval",
                "certificatesigningrequests/status"]},
            {"apiGroups": ["certificates.k8s.io"], "verbs": verbs, "resources": ["signers"],
                "resourceNames": [signer]}]});
    let written = world.ask("PUT", &format!("{ROLES}/jane"), &role).await;
    assert!(written.code < 300, "{}", written.json());
}

async fn patch(world: &World, subresource: &str, status: &Value) -> Answer {
    let jane = User::new("jane", &["system:authenticated"]);
    let path = format!("{REQUESTS}/r/{subresource}");
    let mut object = world.ask("GET", &format!("{REQUESTS}/r"), &Value::Null).await.json();
    object["status"] = status.clone();
    let headers = [("content-type", "application/json")];
    world.ask_as(&jane, ("PUT", &path), &headers, object.to_string()).await
}

#[tokio::test]
async fn approval_and_signing_need_rights_on_the_signer() {
    let world = World::new().await;
    let made = world.ask("POST", REQUESTS, &request("r", "people")).await;
    assert_eq!(made.code, 201, "{}", made.json());
    rights(&world, &["sign"], SIGNER).await;
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": "jane"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "jane"},
        "subjects": [{"kind": "User", "name": "jane", "apiGroup": "rbac.authorization.k8s.io"}]});
    assert_eq!(world.ask("POST", BINDINGS, &binding).await.code, 201);
    let condition = |kind: &str| {
        json!({"conditions": [{"type": kind, "status": "True",
        "reason": "R", "message": "m"}]})
    };

    let refused = patch(&world, "approval", &condition("Approved")).await;
    assert_eq!(refused.code, 403);
    let told = format!("user not permitted to approve requests with signerName {SIGNER:?}");
    assert!(refused.json()["message"].as_str().expect("a message").ends_with(&told));
    let failed = condition("Failed");
    let signed = patch(&world, "status", &failed).await;
    assert_eq!(signed.code, 200, "{}", signed.json());

    // The whole domain will do; signing is a right of its own.
    rights(&world, &["approve"], "kubernetes.io/*").await;
    let mut status = failed.clone();
    status["conditions"]
        .as_array_mut()
        .expect("a list")
        .push(condition("Approved")["conditions"][0].clone());
    let approved = patch(&world, "approval", &status).await;
    assert_eq!(approved.code, 200, "{}", approved.json());
    let more = condition("Seen")["conditions"][0].clone();
    status["conditions"].as_array_mut().expect("a list").push(more);
    let refused = patch(&world, "status", &status).await;
    assert_eq!(refused.code, 403);
}

#[tokio::test]
async fn nobody_becomes_an_administrator_by_certificate() {
    let world = World::new().await;
    let refused = world.ask("POST", REQUESTS, &request("r", "system:masters")).await;
    let told = format!(
        "certificatesigningrequests.certificates.k8s.io \"r\" is forbidden: use of {SIGNER} signer with system:masters group is not allowed"
    );
    assert_eq!((refused.code, refused.json()["message"].as_str()), (403, Some(told.as_str())));
    let mut other = request("r", "system:masters");
    other["spec"]["signerName"] = "example.com/own".into();
    assert_eq!(world.ask("POST", REQUESTS, &other).await.code, 201);
}
