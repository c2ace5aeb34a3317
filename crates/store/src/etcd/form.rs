//! Values in upstream's form: built-in types as protobuf, everything else as JSON; both are
//! read, whatever the type.

use api::proto;
use api::registry::Registry;
use api::schema::{Decoder, Schema, Shape};
use serde_json::Value;

use crate::transformer::Form;

/// Groups whose servers in upstream keep JSON.
const JSON_GROUPS: [&str; 2] = ["apiextensions.k8s.io", "apiregistration.k8s.io"];
/// Kinds that are kept in a version that is not served: version, kind, and name in the schema.
const UNSERVED: [(&str, &str, &str); 3] = [
    ("v1", "RangeAllocation", "core.v1.RangeAllocation"),
    (POLICIES, "MutatingAdmissionPolicy", "admissionregistration.v1.MutatingAdmissionPolicy"),
    (
        POLICIES,
        "MutatingAdmissionPolicyBinding",
        "admissionregistration.v1.MutatingAdmissionPolicyBinding",
    ),
];
const POLICIES: &str = "admissionregistration.k8s.io/v1beta1";

fn shape_of(api_version: &str, kind: &str) -> Option<Shape> {
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    match Registry::built_in().by_kind(group, version, kind) {
        Some(row) => row.ty.map(Shape::Struct),
        None => {
            let unserved = UNSERVED.iter().find(|(v, k, _)| (*v, *k) == (api_version, kind))?;
            Schema::built_in().find(unserved.2).map(Shape::Struct)
        }
    }
}

/// The stored form of an object's canonical JSON.
pub(crate) fn encode(json: &[u8], form: Form) -> Result<Vec<u8>, String> {
    let mut value: Value = serde_json::from_slice(json).map_err(|e| e.to_string())?;
    (form.written)(&mut value);
    let text = |key: &str| value[key].as_str().unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
    match shape_of(api_version, kind).filter(|_| !JSON_GROUPS.contains(&group)) {
        None => serde_json::to_vec(&value).map_err(|e| e.to_string()),
        Some(shape) => {
            let message = proto::encode(Schema::built_in(), &shape, &value);
            Ok(proto::seal(api_version, kind, &message))
        }
    }
}

/// The object in a stored value.
pub(crate) fn decode(bytes: &[u8]) -> Result<Value, String> {
    if !bytes.starts_with(proto::MAGIC) {
        return serde_json::from_slice(bytes).map_err(|e| e.to_string());
    }
    let envelope = proto::open(bytes)?;
    let (version, kind) = (&envelope.api_version, &envelope.kind);
    let shape = shape_of(version, kind).ok_or_else(|| format!("{version} {kind} is not known"))?;
    let schema = Schema::built_in();
    let mut tree = proto::decode(schema, &shape, &envelope.message)?;
    if let Some(map) = tree.as_object_mut() {
        map.insert("apiVersion".into(), envelope.api_version.into());
        map.insert("kind".into(), envelope.kind.into());
    }
    Ok(Decoder { schema, shape: &shape }.decode_value(tree)?.value)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Form, decode, encode};

    #[test]
    fn built_in_types_are_protobuf_and_come_back() {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "a", "namespace": "b", "labels": {"x": "y"}},
            "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}]}]},
        });
        let stored = encode(pod.to_string().as_bytes(), Form::default()).expect("encodes");
        assert!(stored.starts_with(b"k8s\0"));
        let back = decode(&stored).expect("decodes");
        assert_eq!(back["spec"]["containers"][0]["ports"][0]["containerPort"], 80);
        assert_eq!(back["metadata"]["labels"], pod["metadata"]["labels"]);
        assert_eq!((&back["kind"], &back["apiVersion"]), (&pod["kind"], &pod["apiVersion"]));
    }

    #[test]
    fn other_types_and_their_definitions_are_json() {
        for (version, kind) in
            [("example.com/v1", "Thing"), ("apiextensions.k8s.io/v1", "CustomResourceDefinition")]
        {
            let thing = json!({"apiVersion": version, "kind": kind, "metadata": {"name": "a"}});
            let stored = encode(thing.to_string().as_bytes(), Form::default()).expect("encodes");
            assert_eq!(decode(&stored), Ok(thing.clone()));
            assert_eq!(stored, thing.to_string().as_bytes());
        }
    }

    #[test]
    fn taken_ports_are_kept_as_the_original_keeps_them() {
        let ports = json!({"apiVersion": "v1", "kind": "RangeAllocation", "metadata": {},
            "range": "30000-32767", "data": "AQI="});
        let stored = encode(ports.to_string().as_bytes(), Form::default()).expect("encodes");
        let message = b"\x12\x0b30000-32767\x1a\x02\x01\x02";
        assert!(
            stored.starts_with(b"k8s\0\n\x15\n\x02v1\x12\x0fRangeAllocation\x12"),
            "{stored:?}"
        );
        assert!(stored.windows(message.len()).any(|w| w == message), "{stored:?}");
        let back = decode(&stored).expect("decodes");
        assert_eq!((&back["range"], &back["data"]), (&ports["range"], &ports["data"]));
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        let text = |bytes: &[u8]| decode(bytes).expect_err("is refused");
        assert!(!text(b"k8s:enc:aescbc:v1:key1:xyz").is_empty(), "it was to be decrypted before");
        assert!(!text(b"k8s\0\xff\xff").is_empty());
        assert!(!text(b"\x01").is_empty());
    }
}
