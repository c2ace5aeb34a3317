//! Who is approved and signed, for how long, and when requests go.

use std::time::Duration;

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use pki::SigningRequest;
use serde_json::{Value, json};

use super::approve::rights;
use super::clean::end;
use super::rules::{KUBELET_CLIENT, SERVING, check};
use super::sign::life;

fn of_node() -> SigningRequest {
    SigningRequest {
        common_name: "system:node:a".into(),
        organizations: vec!["system:nodes".into()],
        ..SigningRequest::default()
    }
}

fn usages(purpose: &str) -> Vec<String> {
    ["digital signature", "key encipherment", purpose].map(str::to_owned).to_vec()
}

#[test]
fn each_signer_has_its_rules() {
    let client = usages("client auth");
    let said = |signer: &str, request: &SigningRequest, usages: &[String]| {
        check(signer, request, usages).map(|outcome| outcome.err().unwrap_or_default())
    };
    let ok = Some(String::new());
    let no = |text: &str| Some(text.to_owned());
    assert_eq!(said(KUBELET_CLIENT, &of_node(), &client), ok);
    assert_eq!(
        said(KUBELET_CLIENT, &of_node(), &client[..1]),
        no("usages did not match [client auth digital signature key encipherment]")
    );
    let named = SigningRequest { dns_names: vec!["a".into()], ..of_node() };
    assert_eq!(said(KUBELET_CLIENT, &named, &client), no("DNS subjectAltNames are not allowed"));
    let groups = vec!["system:nodes".into(), "system:masters".into()];
    let more = SigningRequest { organizations: groups, ..of_node() };
    let stranger = "subject organization is not system:nodes";
    assert_eq!(said(KUBELET_CLIENT, &more, &client), no(stranger));
    assert_eq!(said(SERVING, &more, &usages("server auth")), no(stranger));
    assert_eq!(said(SERVING, &named, &usages("server auth")), ok);
    let nameless = "DNS or IP subjectAltName is required";
    assert_eq!(said(SERVING, &of_node(), &usages("server auth")), no(nameless));
    let human = SigningRequest { common_name: "jane".into(), ..of_node() };
    let no_node = "subject common name does not begin with system:node:";
    assert_eq!(said(KUBELET_CLIENT, &human, &client), no(no_node));
    let api = "kubernetes.io/kube-apiserver-client";
    assert_eq!(said(api, &human, &client), ok);
    assert_eq!(
        said(api, &human, &usages("server auth")),
        no("invalid usage for client certificate: server auth")
    );
    assert_eq!(
        said(api, &human, &client[..1]),
        no("missing required usage for client certificate: client auth")
    );
    assert_eq!(said("example.com/own", &human, &client), None);
}

fn request(spec: Value, conditions: Value, certificate: bool) -> CertificateSigningRequest {
    let mut full = json!({"request": "", "signerName": KUBELET_CLIENT,
        "usages": usages("client auth"), "username": "system:node:a"});
    for (key, value) in spec.as_object().unwrap() {
        full[key] = value.clone();
    }
    let certificate = certificate.then_some("eA==");
    serde_json::from_value(json!({"metadata": {"name": "r",
        "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": full,
        "status": {"conditions": conditions, "certificate": certificate}}))
    .unwrap()
}

#[test]
fn kubelets_are_approved_by_their_rights() {
    let asked = |spec: Value, parsed: &SigningRequest| {
        let rights = rights(&request(spec, json!([]), false), parsed);
        rights.into_iter().map(|(right, _)| right).collect::<Vec<_>>()
    };
    assert_eq!(asked(json!({}), &of_node()), ["selfnodeclient", "nodeclient"]);
    let bootstrap = json!({"username": "system:bootstrap:abc"});
    assert_eq!(asked(bootstrap, &of_node()), ["nodeclient"]);
    assert!(asked(json!({"signerName": SERVING}), &of_node()).is_empty());
    let human = SigningRequest { common_name: "jane".into(), ..of_node() };
    assert!(asked(json!({}), &human).is_empty());
}

#[test]
fn lives_have_limits() {
    let year = Duration::from_secs(365 * 86_400);
    let hours = |asked| life(asked, year).as_secs() / 60;
    assert_eq!(
        [None, Some(60), Some(7200), Some(i32::MAX)].map(hours),
        [525_600, 10, 120, 525_600]
    );
}

#[test]
fn requests_go_in_time() {
    let at = |kind: &str| {
        json!([{"type": kind, "status": "True",
        "lastUpdateTime": "2026-01-01T06:00:00Z"}])
    };
    let ends = |conditions: Value, issued: bool| {
        end(&request(json!({}), conditions, issued)).unwrap().to_string()
    };
    assert_eq!(ends(json!([]), false), "2026-01-02T00:00:00Z");
    assert_eq!(ends(at("Approved"), false), "2026-01-02T06:00:00Z");
    assert_eq!(ends(at("Approved"), true), "2026-01-01T07:00:00Z");
    assert_eq!(ends(at("Denied"), false), "2026-01-01T07:00:00Z");
    assert_eq!(ends(at("Failed"), false), "2026-01-01T07:00:00Z");
}
