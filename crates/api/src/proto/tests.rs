//! Round trips, and bytes written down by hand.

use serde_json::json;

use super::*;
use crate::schema::Decoder;

fn shape(ty: &str) -> Shape {
    Shape::Struct(Schema::built_in().find(ty).expect("a known type"))
}

fn round_trip(ty: &str, value: Value) {
    let (schema, shape) = (Schema::built_in(), shape(ty));
    let message = encode(schema, &shape, &value);
    let tree = decode(schema, &shape, &message).expect("decodes");
    let back = Decoder { schema, shape: &shape }.decode_value(tree).expect("fits the schema").value;
    let direct =
        Decoder { schema, shape: &shape }.decode_value(value).expect("fits the schema").value;
    assert_eq!(back, direct);
}

#[test]
fn objects_round_trip() {
    round_trip(
        "core.v1.ConfigMap",
        json!({"metadata": {"name": "a", "labels": {"x": "y"}}, "data": {"k": "v"}, "binaryData": {"b": "AAE="}}),
    );
    round_trip(
        "core.v1.Pod",
        json!({
            "metadata": {"name": "p", "creationTimestamp": "2026-01-02T03:04:05Z"},
            "spec": {
                "containers": [{"name": "c", "resources": {"limits": {"cpu": "500m"}},
                    "livenessProbe": {"httpGet": {"port": "http", "path": "/"}, "periodSeconds": 3}}],
                "volumes": [{"name": "v", "configMap": {"name": "m", "optional": false}}],
                "terminationGracePeriodSeconds": 0,
            },
        }),
    );
    round_trip(
        "coordination.v1.Lease",
        json!({"metadata": {}, "spec": {"renewTime": "2026-01-02T03:04:05.000006Z"}}),
    );
    round_trip(
        "admissionregistration.v1.ValidatingAdmissionPolicy",
        json!({"metadata": {}, "spec": {"matchConstraints": {"resourceRules": [{"apiGroups": ["apps"], "operations": ["CREATE"], "resources": ["x"]}]}}}),
    );
}

#[test]
fn bytes_of_a_small_message() {
    let message =
        encode(Schema::built_in(), &shape("core.v1.LocalObjectReference"), &json!({"name": "ab"}));
    assert_eq!(message, [0x0a, 2, b'a', b'b']);
    let sealed = seal("v1", "Pod", &message);
    let envelope = open(&sealed).expect("our own envelope");
    assert_eq!((envelope.api_version.as_str(), envelope.kind.as_str()), ("v1", "Pod"));
    assert_eq!(envelope.message, message);
}

#[test]
fn malformed_input_is_told() {
    let shape = shape("core.v1.Pod");
    for bytes in [&[0x0a_u8, 200][..], &[0xff; 12], &[0x0b], &[0x08, 1]] {
        assert!(decode(Schema::built_in(), &shape, bytes).is_err(), "{bytes:?}");
    }
    assert!(open(b"{}").is_err());
}

/// Definitions of custom resources hold what is a schema or something else.
#[test]
fn alternatives_to_schemas_come_back() {
    let schema = Schema::built_in();
    let id = schema.find("apiextensions.v1.JSONSchemaProps").expect("the type");
    let shape = Shape::Struct(id);
    let value = json!({
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "list": {"type": "array", "items": {"type": "string", "enum": ["a", 1]}},
            "many": {"items": [{"type": "string"}, {"type": "integer"}]},
            "open": {"additionalProperties": {"type": "string", "default": "x"}},
            "any": {"additionalProperties": true},
        },
        "dependencies": {"a": ["b", "c"], "d": {"type": "object"}},
    });
    let message = encode(schema, &shape, &value);
    let back = decode(schema, &shape, &message).expect("a message");
    let read = Decoder { schema, shape: &shape };
    assert_eq!(read.decode_value(back).expect("a schema").value, value);
}
