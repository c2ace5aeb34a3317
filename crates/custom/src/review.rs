//! `ConversionReview`: the question a conversion webhook is asked, and what of its answer is taken.
//!
//! Rules and texts are those of apiextensions' webhook converter: the answer must be about the
//! question (not checked of v1beta1), succeed, and hold one object for each that was sent; of an
//! object's metadata a webhook may change labels and annotations only.

use serde_json::{Map, Value, json};
use validation::Check;

/// The version of the review that a webhook speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReviewVersion {
    V1,
    V1beta1,
}

impl ReviewVersion {
    /// The first of `conversionReviewVersions` that is known.
    pub fn choose(versions: &Value) -> Option<ReviewVersion> {
        versions.as_array()?.iter().find_map(|version| match version.as_str()? {
            "v1" => Some(ReviewVersion::V1),
            "v1beta1" => Some(ReviewVersion::V1beta1),
            _ => None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            ReviewVersion::V1 => "v1",
            ReviewVersion::V1beta1 => "v1beta1",
        }
    }

    /// The question.
    pub fn request(self, uid: &str, wanted: &str, objects: &[&Value]) -> Value {
        json!({
            "kind": "ConversionReview",
            "apiVersion": format!("apiextensions.k8s.io/{}", self.name()),
            "request": {"uid": uid, "desiredAPIVersion": wanted, "objects": objects},
        })
    }

    /// The objects of an answer that says it succeeded.
    pub fn converted(self, uid: &str, mut answer: Value) -> Result<Vec<Value>, String> {
        if self == ReviewVersion::V1 {
            let (group, version) = split(text(&answer["apiVersion"]));
            let found = format!("{group}/{version}, Kind={}", text(&answer["kind"]));
            let expected = "apiextensions.k8s.io/v1, Kind=ConversionReview";
            if found != expected {
                return Err(format!("expected webhook response of {expected}, got {found}"));
            }
        }
        let response = &mut answer["response"];
        if !response.is_object() {
            return Err("no response provided".into());
        }
        let found = text(&response["uid"]);
        if self == ReviewVersion::V1 && found != uid {
            return Err(format!("expected response.uid={uid:?}, got {found:?}"));
        }
        let (result, why) =
            (text(&response["result"]["status"]), text(&response["result"]["message"]));
        match (result, why) {
            ("Success", _) => {}
            (other, "") => {
                return Err(format!("response.result.status was '{other}', not 'Success'"));
            }
            (_, why) => return Err(why.to_owned()),
        }
        match response["convertedObjects"].take() {
            Value::Array(objects) => Ok(objects),
            _ => Ok(Vec::new()),
        }
    }
}

/// What is wrong with a converted object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It is of another version or kind.
    Type(String),
    /// It is another object.
    Object(String),
    Metadata(String),
}

impl Fault {
    /// The end of the sentence "conversion webhook for … returned invalid …"; `at` is its place
    /// in a list.
    pub fn told(&self, at: Option<usize>) -> String {
        let place = at.map(|at| format!("converted object at index {at}"));
        match (self, place) {
            (Fault::Type(why) | Fault::Object(why), Some(place)) => format!("{place}: {why}"),
            (Fault::Metadata(why), Some(_)) => {
                format!("metadata in object at index {}: {why}", at.unwrap_or(0))
            }
            (Fault::Type(why), None) => format!("object at index 0: {why}"),
            (Fault::Object(why), None) => format!("object: {why}"),
            (Fault::Metadata(why), None) => format!("metadata: {why}"),
        }
    }
}

/// The object to go on with: `converted`, with upstream's metadata but for what may change.
pub fn accept(original: &Value, mut converted: Value, wanted: &str) -> Result<Value, Fault> {
    same_type(original, &converted, wanted).map_err(Fault::Type)?;
    same_object(original, &converted).map_err(Fault::Object)?;
    let metadata = metadata(original, &converted).map_err(Fault::Metadata)?;
    converted["metadata"] = metadata;
    Ok(converted)
}

fn same_type(original: &Value, converted: &Value, wanted: &str) -> Result<(), String> {
    let (before, after) = (text(&original["kind"]), text(&converted["kind"]));
    if !converted.is_object() || after.is_empty() {
        return Err(format!("Object 'Kind' is missing in '{converted}'"));
    }
    let found = text(&converted["apiVersion"]);
    if found != wanted {
        return Err(format!("invalid groupVersion (expected {wanted}, received {found})"));
    }
    if before != after {
        return Err(format!("invalid kind (expected {before}, received {after})"));
    }
    Ok(())
}

fn same_object(original: &Value, converted: &Value) -> Result<(), String> {
    for (key, what) in [("name", "name"), ("namespace", "namespace"), ("uid", "UID")] {
        let (before, after) = (text(&original["metadata"][key]), text(&converted["metadata"][key]));
        if before != after {
            return Err(format!("must have the same {what}: {before} != {after}"));
        }
    }
    Ok(())
}

fn metadata(original: &Value, converted: &Value) -> Result<Value, String> {
    let sent = match converted.get("metadata") {
        None => return Err("missing metadata in converted object".into()),
        Some(Value::Object(sent)) => sent,
        Some(other) => {
            return Err(format!("invalid metadata of type {} in converted object", go_type(other)));
        }
    };
    let mut kept = original["metadata"].as_object().cloned().unwrap_or_default();
    for field in ["labels", "annotations"] {
        match sent.get(field) {
            None | Some(Value::Null) => drop(kept.remove(field)),
            Some(Value::Object(map)) => {
                texts(field, map)?;
                if kept.get(field) != sent.get(field) {
                    valid(field, map)?;
                }
                kept.insert(field.into(), map.clone().into());
            }
            Some(other) => {
                let ty = go_type(other);
                return Err(format!("invalid metadata.{field} of type {ty} in converted object"));
            }
        }
    }
    Ok(kept.into())
}

fn texts(field: &str, map: &Map<String, Value>) -> Result<(), String> {
    match map.iter().find(|(_, value)| !value.is_string()) {
        None => Ok(()),
        Some((key, value)) => Err(format!(
            "metadata.{field}[{key}] must be a string, but is {} in converted object",
            go_type(value)
        )),
    }
}

/// What anybody's labels and annotations must be.
fn valid(field: &'static str, map: &Map<String, Value>) -> Result<(), String> {
    let check = Check::default();
    let holder = json!({"metadata": {(field): map}});
    let (root, labels) = (check.root(&holder, None), field == "labels");
    let (meta, shown) = (root.get("metadata"), if labels { "labels" } else { "annotation" });
    let place = meta.get_as(field, shown);
    if labels {
        place.labels()
    } else {
        validation::annotations(&place)
    }
    let causes = check.into_causes().into_iter();
    let faults: Vec<String> = causes.map(|c| format!("{}: {}", c.field, c.message)).collect();
    match faults.as_slice() {
        [] => Ok(()),
        [one] => Err(one.clone()),
        many => Err(format!("[{}]", many.join(", "))),
    }
}

fn split(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

/// What Go calls the type of a JSON value.
fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(n) if n.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gizmo(version: &str, metadata: &Value) -> Value {
        json!({"apiVersion": format!("e.com/{version}"), "kind": "Gizmo", "metadata": metadata})
    }

    #[test]
    fn the_first_known_review_version_is_spoken() {
        let choose = |versions: Value| ReviewVersion::choose(&versions);
        assert_eq!(choose(json!(["v2", "v1beta1", "v1"])), Some(ReviewVersion::V1beta1));
        assert_eq!(choose(json!(["v2"])), None);
    }

    #[test]
    fn an_answer_must_be_about_the_question() {
        let head = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview"});
        let ask = |response: Value| {
            let mut answer = head.clone();
            answer["response"] = response;
            ReviewVersion::V1.converted("u", answer)
        };
        let done = json!({"uid": "u", "result": {"status": "Success"}, "convertedObjects": [1]});
        assert_eq!(ask(done), Ok(vec![json!(1)]));
        for (response, why) in [
            (Value::Null, "no response provided"),
            (json!({"uid": "v"}), "expected response.uid=\"u\", got \"v\""),
            (json!({"uid": "u"}), "response.result.status was '', not 'Success'"),
            (json!({"uid": "u", "result": {"status": "Failed", "message": "no"}}), "no"),
        ] {
            assert_eq!(ask(response), Err(why.to_owned()));
        }
        let old = json!({"response": {"result": {"status": "Success"}}});
        assert_eq!(ReviewVersion::V1beta1.converted("u", old.clone()), Ok(Vec::new()));
        let refused = ReviewVersion::V1.converted("u", old).unwrap_err();
        assert!(refused.starts_with("expected webhook response of apiextensions.k8s.io/v1, Kind="));
    }

    #[test]
    fn only_labels_and_annotations_may_change() {
        let before =
            gizmo("v1", &json!({"name": "a", "uid": "u", "labels": {"x": "y"}, "generation": 3}));
        let after = gizmo(
            "v2",
            &json!({"name": "a", "uid": "u", "annotations": {"z": "1"}, "generation": 9}),
        );
        let taken = accept(&before, after, "e.com/v2").expect("a sound object");
        let metadata = json!({"name": "a", "uid": "u", "annotations": {"z": "1"}, "generation": 3});
        assert_eq!(taken["metadata"], metadata);
        for (version, metadata, why) in [
            (
                "v1",
                json!({"name": "a"}),
                "object at index 0: invalid groupVersion (expected e.com/v2, received e.com/v1)",
            ),
            ("v2", json!({"name": "b"}), "object: must have the same name: a != b"),
            ("v2", json!({"name": "a"}), "object: must have the same UID: u != "),
            (
                "v2",
                json!({"name": "a", "uid": "u", "labels": []}),
                "metadata: invalid metadata.labels of type []interface {} in converted object",
            ),
            (
                "v2",
                json!({"name": "a", "uid": "u", "labels": {"x": 1}}),
                "metadata: metadata.labels[x] must be a string, but is int64 in converted object",
            ),
        ] {
            let fault = accept(&before, gizmo(version, &metadata), "e.com/v2").unwrap_err();
            assert_eq!(fault.told(None), why);
        }
        let bad = gizmo("v2", &json!({"name": "a", "uid": "u", "labels": {"x": "no blanks"}}));
        let fault = accept(&before, bad, "e.com/v2").unwrap_err().told(Some(2));
        assert!(
            fault.starts_with(
                "metadata in object at index 2: metadata.labels: Invalid value: \"no blanks\""
            ),
            "{fault}"
        );
    }
}
