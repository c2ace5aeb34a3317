use api::registry::Registry;
use serde_json::{Value, json};

fn definition() -> Value {
    json!({
        "metadata": {"name": "as.b.c"},
        "spec": {
            "group": "b.c", "scope": "Namespaced",
            "names": {"plural": "as", "kind": "A"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {
                "openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object"}}}}}],
        },
        "status": {"storedVersions": ["v1"]},
    })
}

fn faults(change: impl FnOnce(&mut Value)) -> Vec<(String, String)> {
    let mut object = definition();
    super::default(&mut object);
    change(&mut object);
    let rows = Registry::built_in();
    let row = rows.find("apiextensions.k8s.io", "v1", "customresourcedefinitions", "");
    let found = crate::validate_create(row.expect("known"), &object);
    found.into_iter().map(|c| (c.field, c.reason)).collect()
}

#[test]
fn names_follow_from_the_kind() {
    let mut object = definition();
    super::default(&mut object);
    assert_eq!(object["spec"]["names"]["listKind"], "AList");
    assert_eq!(object["spec"]["conversion"]["strategy"], "None");
    assert_eq!(faults(|_| {}), []);
}

#[test]
fn a_shared_schema_is_named_once() {
    let found = faults(|o| {
        let schema = &mut o["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        schema["properties"]["spec"]["properties"] = json!({"a": {}});
    });
    let path = "spec.validation.openAPIV3Schema.properties[spec].properties[a].type";
    assert_eq!(found, [(path.to_owned(), "FieldValueRequired".to_owned())]);
}

#[test]
fn a_webhook_needs_an_address_and_known_reviews() {
    let found = faults(|o| {
        o["spec"]["conversion"] = json!({"strategy": "Webhook", "webhook": {
            "clientConfig": {}, "conversionReviewVersions": ["v7"]}});
    });
    let fields: Vec<&str> = found.iter().map(|f| &*f.0).collect();
    assert_eq!(
        fields,
        ["spec.conversion.webhookClientConfig", "spec.conversion.conversionReviewVersions"]
    );
}

#[test]
fn a_bundle_must_hold_a_certificate() {
    let with = |bundle: &'static str| {
        move |o: &mut Value| {
            o["spec"]["conversion"] = json!({"strategy": "Webhook", "webhook": {
                "clientConfig": {"service": {"namespace": "a", "name": "b", "port": 443}, "caBundle": bundle},
                "conversionReviewVersions": ["v1"]}});
        }
    };
    assert_eq!(faults(with("")), []);
    let field = "spec.conversion.webhookClientConfig.caBundle".to_owned();
    assert_eq!(faults(with("bm9uZQ==")), [(field, "FieldValueInvalid".to_owned())]);
}
