//! How upstream words a strategic merge patch whose result does not fit the type: it converts the
//! patched map instead of decoding it.

use std::fmt::Write as _;

use serde_json::Value;

/// Bytes of a patch that a refusal shows.
const SHOWN_MAX: usize = 64 * 1024;

/// The patch as Go prints a map, and the fault of the conversion, when `decoding` tells of a value of
/// the wrong type.
pub fn conversion_fault(patch: &Value, decoding: &str) -> Option<(String, String)> {
    let (_, rest) = decoding.split_once("json: cannot unmarshal ")?;
    let (found, rest) = rest.split_once(" into Go ")?;
    let (_, wanted) = rest.rsplit_once(" of type ")?;
    let kind = match found.split(' ').next().unwrap_or(found) {
        "array" => "slice",
        "object" => "map",
        "number" => "int64",
        other => other,
    };
    let fault = match wanted {
        "int32" | "int64" | "string" | "bool" | "float64" => format!("unrecognized type: {wanted}"),
        list if list.starts_with("[]") => format!("cannot restore slice from {kind}"),
        map if map.starts_with("map[") => format!("cannot restore map from {kind}"),
        _ => format!("cannot restore struct from: {kind}"),
    };
    let mut shown = String::new();
    print(patch, &mut shown);
    Some((shown, fault))
}

/// Go's `%+v`.
fn print(value: &Value, out: &mut String) {
    if out.len() > SHOWN_MAX {
        return;
    }
    match value {
        Value::Null => out.push_str("<nil>"),
        Value::String(text) => out.push_str(text),
        Value::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                out.push_str(if at > 0 { " " } else { "" });
                print(item, out);
            }
            out.push(']');
        }
        Value::Object(map) => {
            out.push_str("map[");
            for (at, (key, item)) in map.iter().enumerate() {
                let _ = write!(out, "{}{key}:", if at > 0 { " " } else { "" });
                print(item, out);
            }
            out.push(']');
        }
        other => {
            let _ = write!(out, "{other}");
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::conversion_fault;

    #[test]
    fn faults_are_worded_as_conversions() {
        let patch = json!({"spec": {"replicas": "x", "list": [1, "a", null, true]}});
        let told = |decoding: &str| conversion_fault(&patch, decoding);
        let (shown, fault) = told("json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32").expect("a fault");
        assert_eq!(shown, "map[spec:map[list:[1 a <nil> true] replicas:x]]");
        assert_eq!(fault, "unrecognized type: int32");
        let (_, fault) = told(
            "json: cannot unmarshal array into Go struct field X.spec of type v1.DeploymentSpec",
        )
        .expect("a fault");
        assert_eq!(fault, "cannot restore struct from: slice");
        assert_eq!(told("strict decoding error: unknown field \"a\""), None);
    }
}
