//! The schema decodes as upstream's types do.

use serde_json::json;

use super::*;

fn decode(ty: &str, value: Value) -> Result<Decoded, String> {
    let schema = Schema::built_in();
    let shape = Shape::Struct(schema.find(ty).expect("a known type"));
    Decoder { schema, shape: &shape }.decode_slice(value.to_string().as_bytes())
}

#[test]
fn unknown_fields_are_named_and_dropped() {
    let decoded =
        decode("core.v1.ConfigMap", json!({"dta": {}, "metadata": {"name": "a", "x": 1}}));
    let decoded = decoded.expect("decodes");
    assert_eq!(decoded.strict, ["unknown field \"dta\"", "unknown field \"metadata.x\""]);
    assert_eq!(decoded.value, json!({"metadata": {"name": "a"}}));
}

#[test]
fn duplicates_are_named() {
    let schema = Schema::built_in();
    let shape = Shape::Struct(schema.find("core.v1.ConfigMap").expect("known"));
    let text = br#"{"metadata":{"name":"a","name":"b"},"data":{"k":"1","k":"2"}}"#;
    let decoded = Decoder { schema, shape: &shape }.decode_slice(text).expect("decodes");
    assert_eq!(decoded.strict, ["duplicate field \"metadata.name\"", "duplicate field \"data.k\""]);
}

#[test]
fn a_wrong_type_is_told_as_go_does() {
    let fault = decode("core.v1.ConfigMap", json!({"metadata": {"name": 123}})).expect_err("wrong");
    assert_eq!(
        fault,
        "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.name of type string"
    );
}

#[test]
fn zero_values_follow_go() {
    let decoded = decode(
        "apps.v1.Deployment",
        json!({"metadata": {"name": ""}, "spec": {"replicas": 0, "paused": false}}),
    );
    assert_eq!(
        decoded.expect("decodes").value,
        json!({
            "metadata": {},
            "spec": {"replicas": 0, "selector": null, "strategy": {}, "template": {"metadata": {}, "spec": {"containers": null}}},
            "status": {},
        })
    );
}

#[test]
fn defaults_are_filled_everywhere() {
    let schema = Schema::built_in();
    let shape = Shape::Struct(schema.find("core.v1.Pod").expect("known"));
    let mut value =
        json!({"spec": {"containers": [{"name": "a", "ports": [{"containerPort": 80}]}]}});
    schema.apply_defaults(&shape, &mut value);
    assert_eq!(value["spec"]["containers"][0]["ports"][0]["protocol"], "TCP");
    assert_eq!(value["spec"]["restartPolicy"], "Always");
}
