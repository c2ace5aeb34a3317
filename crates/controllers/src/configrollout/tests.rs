//! When configuration rolls a workload out.

use k8s_openapi::api::core::v1::{ConfigMap, PodTemplateSpec, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use super::plan::{Content, Kind, Step, of_map, of_secret, references, step};

fn template(volumes: Value) -> PodTemplateSpec {
    serde_json::from_value(json!({"spec": {"containers": [{"name": "c", "envFrom": [
        {"configMapRef": {"name": "all"}}, {"secretRef": {"name": "keys", "optional": true}}]}],
        "volumes": volumes}}))
    .unwrap()
}

fn meta(annotations: Value) -> ObjectMeta {
    serde_json::from_value(json!({"name": "w", "annotations": annotations})).unwrap()
}

fn asked(observed: Option<&str>) -> ObjectMeta {
    meta(json!({"rollout.trireme.io/on-config-change": "true",
        "rollout.trireme.io/observed-config": observed.unwrap_or("")}))
}

fn first() -> ObjectMeta {
    meta(json!({"rollout.trireme.io/on-config-change": "true"}))
}

fn map(value: &str) -> impl Fn(Kind, &str) -> Option<Content> {
    let map: ConfigMap =
        serde_json::from_value(json!({"metadata": {}, "data": {"k": value}})).unwrap();
    move |kind, name| (kind == Kind::ConfigMap && name == "all").then(|| of_map(&map))
}

fn observed(value: &str) -> String {
    match step(&first(), &template(json!([])), map(value)) {
        Step::Observe(hash) => hash,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_change_of_content_rolls_out_and_nothing_else_does() {
    let (one, two) = (observed("1"), observed("2"));
    assert_ne!(one, two);
    let now = |observed: &str, value: &str| {
        step(&asked(Some(observed)), &template(json!([])), map(value))
    };
    assert_eq!(now(&one, "1"), Step::Nothing);
    assert_eq!(now(&one, "2"), Step::RollOut(two.clone()));
    // Who does not ask is left alone.
    assert_eq!(step(&meta(json!({})), &template(json!([])), map("2")), Step::Nothing);
    let no = meta(json!({"rollout.trireme.io/on-config-change": "false"}));
    assert_eq!(step(&no, &template(json!([])), map("2")), Step::Nothing);
}

#[test]
fn a_template_with_other_references_is_rolled_out_by_itself() {
    let one = observed("1");
    let more = template(json!([{"name": "v", "secret": {"secretName": "s", "optional": true}}]));
    assert!(matches!(step(&asked(Some(&one)), &more, map("1")), Step::Observe(_)));
}

#[test]
fn nothing_is_rolled_out_without_what_pods_need() {
    let one = observed("1");
    let gone = |_: Kind, _: &str| None;
    assert_eq!(step(&asked(Some(&one)), &template(json!([])), gone), Step::Nothing);
    // What is optional may come and go, and that is a change.
    let secret: Secret =
        serde_json::from_value(json!({"metadata": {}, "data": {"k": "dg=="}})).unwrap();
    let with = |kind: Kind, name: &str| match kind {
        Kind::ConfigMap => map("1")(kind, name),
        Kind::Secret => Some(of_secret(&secret)),
    };
    assert!(matches!(step(&asked(Some(&one)), &template(json!([])), with), Step::RollOut(_)));
}

#[test]
fn all_ways_to_refer_count() {
    let spec: PodTemplateSpec = serde_json::from_value(json!({"spec": {
        "initContainers": [{"name": "i", "env": [{"name": "A", "valueFrom":
            {"configMapKeyRef": {"name": "a", "key": "k"}}}]}],
        "containers": [{"name": "c", "env": [{"name": "B", "valueFrom":
            {"secretKeyRef": {"name": "b", "key": "k"}}}], "envFrom": [
            {"configMapRef": {"name": "a", "optional": true}}]}],
        "volumes": [{"name": "v", "configMap": {"name": "c"}},
            {"name": "w", "secret": {"secretName": "d", "optional": true}},
            {"name": "x", "projected": {"sources": [{"configMap": {"name": "e"}},
                {"secret": {"name": "f"}}]}}]}}))
    .unwrap();
    let found: Vec<(Kind, String, bool)> =
        references(&spec).into_iter().map(|((kind, name), opt)| (kind, name, opt)).collect();
    let (map, secret) = (Kind::ConfigMap, Kind::Secret);
    let expected = [
        // Optional in one place only.
        (map, "a", false),
        (map, "c", false),
        (map, "e", false),
        (secret, "b", false),
        (secret, "d", true),
        (secret, "f", false),
    ];
    assert_eq!(found, expected.map(|(kind, name, opt)| (kind, name.to_owned(), opt)));
}
