//! AdmissionReview: the question that is sent, and the answer that is accepted (apiserver
//! `plugin/webhook/request`).

use api::Status;
use api::registry::Resource;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use validation::items;

use crate::attributes::Attributes;
use crate::expressions::admission_request;

const KIND: &str = "AdmissionReview";
/// Status codes of refusals are at least this.
const LEAST_CODE: u64 = 400;

/// A version of AdmissionReview.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReviewVersion {
    V1,
    V1Beta1,
}

impl ReviewVersion {
    /// The first of a webhook's versions that this server knows.
    pub(super) fn choose(versions: &Value) -> Option<ReviewVersion> {
        versions.as_array()?.iter().find_map(|version| match version.as_str()? {
            "v1" => Some(ReviewVersion::V1),
            "v1beta1" => Some(ReviewVersion::V1Beta1),
            _ => None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            ReviewVersion::V1 => "v1",
            ReviewVersion::V1Beta1 => "v1beta1",
        }
    }

    fn api_version(self) -> String {
        format!("admission.k8s.io/{}", self.name())
    }
}

/// What is asked about a request in the version of `row`.
pub(super) fn question(
    version: ReviewVersion,
    uid: &str,
    (request, row): (&Attributes<'_>, &Resource),
    (object, old): (&Value, &Value),
) -> Value {
    let mut asked = admission_request(request, row);
    asked["uid"] = uid.into();
    asked["object"] = object.clone();
    asked["oldObject"] = old.clone();
    json!({"kind": KIND, "apiVersion": version.api_version(), "request": asked})
}

/// What of an answer counts.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Answer {
    pub(super) is_allowed: bool,
    /// `metav1.Status` of a refusal; null where there is none.
    pub(super) result: Value,
    /// The text of a JSON patch; empty where there is none.
    pub(super) patch: Vec<u8>,
    pub(super) patch_type: String,
    pub(super) annotations: Vec<(String, String)>,
    pub(super) warnings: Vec<String>,
}

/// Why an answer is not accepted.
#[derive(Debug, PartialEq)]
pub(super) enum Unusable {
    /// It is not a review: the call failed.
    Undecodable(String),
    Invalid(String),
}

/// Reads the answer of a mutating or validating webhook.
pub(super) fn answer(
    version: ReviewVersion,
    uid: &str,
    is_mutating: bool,
    review: &Value,
) -> Result<Answer, Unusable> {
    check_kind(version, review).map_err(Unusable::Undecodable)?;
    check_types(review).map_err(Unusable::Undecodable)?;
    let response = &review["response"];
    let invalid = |text: &str| Err(Unusable::Invalid(text.to_owned()));
    if !response.is_object() {
        return invalid("webhook response was absent");
    }
    let patch = STANDARD.decode(text(response, "patch"));
    let patch = patch.map_err(|e| Unusable::Undecodable(format!("illegal base64 data: {e}")))?;
    let mut answer = Answer {
        is_allowed: response["allowed"] == true,
        result: response["status"].clone(),
        patch,
        patch_type: text(response, "patchType").to_owned(),
        annotations: strings(&response["auditAnnotations"]),
        warnings: items(response, "warnings").filter_map(Value::as_str).map(Into::into).collect(),
    };
    let has_type = response["patchType"].is_string();
    match (version, is_mutating) {
        (ReviewVersion::V1, _) => {
            check_v1(uid, is_mutating, has_type, review, &answer).map_err(Unusable::Invalid)?
        }
        (ReviewVersion::V1Beta1, true) => {
            let patches = !answer.patch.is_empty();
            answer.patch_type = if patches { "JSONPatch".into() } else { String::new() };
        }
        (ReviewVersion::V1Beta1, false) => answer.patch.clear(),
    }
    Ok(answer)
}

/// Whether the answer of a webhook would be accepted, in one of the versions: what the fuzzer feeds.
#[doc(hidden)]
pub fn is_usable(uid: &str, is_mutating: bool, review: &Value) -> bool {
    let read = |version| answer(version, uid, is_mutating, review).is_ok();
    read(ReviewVersion::V1) || read(ReviewVersion::V1Beta1)
}

fn check_v1(
    uid: &str,
    is_mutating: bool,
    has_type: bool,
    review: &Value,
    answer: &Answer,
) -> Result<(), String> {
    let found = text(&review["response"], "uid");
    if found != uid {
        return Err(format!("expected response.uid={uid:?}, got {found:?}"));
    }
    let (api_version, kind) = (text(review, "apiVersion"), text(review, "kind"));
    if api_version.is_empty() || kind.is_empty() {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        return Err(format!(
            "expected webhook response of admission.k8s.io/v1, Kind={KIND}, got {group}/{version}, Kind={kind}"
        ));
    }
    match (is_mutating, !answer.patch.is_empty(), has_type) {
        (true, true, false) => {
            Err("webhook returned response.patch but not response.patchType".into())
        }
        (true, false, true) => {
            Err("webhook returned response.patchType but not response.patch".into())
        }
        (true, true, true) if answer.patch_type.is_empty() => {
            Err("webhook returned invalid response.patchType of \"\"".into())
        }
        (false, true, _) => Err("validating webhook may not return response.patch".into()),
        (false, _, true) => Err("validating webhook may not return response.patchType".into()),
        _ => Ok(()),
    }
}

/// An absent kind is taken for the one that was asked in; another one cannot be read.
fn check_kind(version: ReviewVersion, review: &Value) -> Result<(), String> {
    let wanted = version.api_version();
    let (api_version, kind) = (text(review, "apiVersion"), text(review, "kind"));
    let is_review = ["admission.k8s.io/v1", "admission.k8s.io/v1beta1"].contains(&api_version);
    match (api_version, kind) {
        ("", "" | KIND) | (_, "") => Ok(()),
        (found, KIND) if found == wanted => Ok(()),
        (found, KIND) if is_review => {
            let found = found.rsplit('/').next().unwrap_or("");
            let wanted = version.name();
            Err(format!("converting ({found}.{KIND}) to ({wanted}.{KIND}): unknown conversion"))
        }
        (found, kind) => Err(format!(
            "no kind {kind:?} is registered for version {found:?} in scheme \"k8s.io/apiserver/pkg/util/webhook/client.go\""
        )),
    }
}

/// The fields that are read are of their types.
fn check_types(review: &Value) -> Result<(), String> {
    if !review.is_object() {
        return Err(unmarshal(review, "", "v1.AdmissionReview"));
    }
    let response = &review["response"];
    if !response.is_object() && !response.is_null() {
        return Err(unmarshal(review, "AdmissionReview.response", "v1.AdmissionResponse"));
    }
    type Is = fn(&Value) -> bool;
    let fields: [(&str, Is, &str); 7] = [
        ("uid", Value::is_string, "types.UID"),
        ("allowed", Value::is_boolean, "bool"),
        ("status", Value::is_object, "v1.Status"),
        ("patch", Value::is_string, "[]uint8"),
        ("patchType", Value::is_string, "v1.PatchType"),
        ("auditAnnotations", has_only_strings, "map[string]string"),
        ("warnings", has_only_strings, "[]string"),
    ];
    for (key, is, wanted) in fields {
        let value = &response[key];
        if !value.is_null() && !is(value) {
            let field = format!("AdmissionResponse.response.{key}");
            return Err(unmarshal(value, &field, wanted));
        }
    }
    Ok(())
}

fn has_only_strings(value: &Value) -> bool {
    match value {
        Value::Array(list) => list.iter().all(|item| item.is_string() || item.is_null()),
        Value::Object(map) => map.values().all(|item| item.is_string() || item.is_null()),
        _ => false,
    }
}

/// Go's error for a value of another type.
fn unmarshal(found: &Value, field: &str, wanted: &str) -> String {
    let found = match found {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    match field {
        "" => format!("json: cannot unmarshal {found} into Go value of type {wanted}"),
        _ => {
            format!("json: cannot unmarshal {found} into Go struct field {field} of type {wanted}")
        }
    }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or("")
}

fn strings(map: &Value) -> Vec<(String, String)> {
    let pairs = map.as_object().into_iter().flatten();
    pairs.map(|(key, value)| (key.clone(), value.as_str().unwrap_or("").to_owned())).collect()
}

/// The refusal that a webhook's result makes (apiserver `plugin/webhook/errors`).
pub(super) fn refusal(webhook: &str, result: &Value) -> Status {
    let (reason, message) = (text(result, "reason"), text(result, "message"));
    let code = result["code"].as_u64().unwrap_or(0).max(LEAST_CODE);
    // HTTP knows no codes above 999.
    let code = u16::try_from(code).ok().filter(|code| *code < 1000).unwrap_or(500);
    let why = match (message, reason) {
        ("", "") => " without explanation".to_owned(),
        ("", reason) => format!(": {reason}"),
        (message, _) => format!(": {message}"),
    };
    let message = format!("admission webhook {webhook:?} denied the request{why}");
    let mut status = Status::failure(code, reason, message);
    status.details = serde_json::from_value(result["details"].clone()).ok();
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(version: ReviewVersion, is_mutating: bool, review: Value) -> Result<Answer, Unusable> {
        answer(version, "u", is_mutating, &review)
    }

    fn v1(response: Value) -> Value {
        json!({"apiVersion": "admission.k8s.io/v1", "kind": KIND, "response": response})
    }

    #[test]
    fn the_first_known_version_is_chosen() {
        let choose = |list: Value| ReviewVersion::choose(&list);
        assert_eq!(choose(json!(["v2", "v1beta1", "v1"])), Some(ReviewVersion::V1Beta1));
        assert_eq!(choose(json!(["v1", "v1beta1"])), Some(ReviewVersion::V1));
        assert_eq!(choose(json!(["v2"])), None);
    }

    #[test]
    fn answers_that_are_not_what_was_asked_for_are_refused() {
        use ReviewVersion::{V1, V1Beta1};
        for (is_mutating, review, why) in [
            (true, v1(Value::Null), "webhook response was absent"),
            (true, v1(json!({"uid": "x"})), "expected response.uid=\"u\", got \"x\""),
            (
                true,
                json!({"response": {"uid": "u"}}),
                "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got /, Kind=",
            ),
            (
                true,
                v1(json!({"uid": "u", "patch": "W10="})),
                "webhook returned response.patch but not response.patchType",
            ),
            (
                true,
                v1(json!({"uid": "u", "patchType": "JSONPatch"})),
                "webhook returned response.patchType but not response.patch",
            ),
            (
                true,
                v1(json!({"uid": "u", "patch": "W10=", "patchType": ""})),
                "webhook returned invalid response.patchType of \"\"",
            ),
            (
                false,
                v1(json!({"uid": "u", "patch": "W10="})),
                "validating webhook may not return response.patch",
            ),
            (
                false,
                v1(json!({"uid": "u", "patchType": "JSONPatch"})),
                "validating webhook may not return response.patchType",
            ),
        ] {
            assert_eq!(read(V1, is_mutating, review), Err(Unusable::Invalid(why.into())));
        }
        // The old version is read as it always was.
        let old = json!({"response": {"uid": "x", "allowed": true, "patch": "W10="}});
        let answer = read(V1Beta1, true, old).expect("accepted");
        assert!(answer.is_allowed && answer.patch_type == "JSONPatch" && answer.patch == b"[]");
    }

    #[test]
    fn what_is_no_review_cannot_be_decoded() {
        use ReviewVersion::V1;
        let undecodable = |review: Value| match read(V1, true, review) {
            Err(Unusable::Undecodable(why)) => why,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            undecodable(json!({"apiVersion": "admission.k8s.io/v1beta1", "kind": KIND})),
            "converting (v1beta1.AdmissionReview) to (v1.AdmissionReview): unknown conversion"
        );
        assert!(
            undecodable(json!({"apiVersion": "v1", "kind": "Pod"})).starts_with("no kind \"Pod\"")
        );
        assert_eq!(
            undecodable(v1(json!({"uid": "u", "allowed": "yes"}))),
            "json: cannot unmarshal string into Go struct field AdmissionResponse.response.allowed of type bool"
        );
        for (key, value) in [
            ("uid", json!(1)),
            ("status", json!("no")),
            ("patch", json!([1])),
            ("auditAnnotations", json!({"a": 1})),
            ("warnings", json!("text")),
            ("patch", json!("***")),
        ] {
            undecodable(v1(json!({"uid": "u", key: value})));
        }
        undecodable(json!([]));
        undecodable(json!({"response": 1}));
    }

    #[test]
    fn refusals_say_who_refused_and_have_an_error_code() {
        for (result, code, message) in [
            (Value::Null, 400, "admission webhook \"w\" denied the request without explanation"),
            (
                json!({"code": 200}),
                400,
                "admission webhook \"w\" denied the request without explanation",
            ),
            (json!({"reason": "Gone"}), 400, "admission webhook \"w\" denied the request: Gone"),
            (
                json!({"message": "no", "reason": "Gone", "code": 418}),
                418,
                "admission webhook \"w\" denied the request: no",
            ),
            (
                json!({"message": "no", "code": 70000}),
                500,
                "admission webhook \"w\" denied the request: no",
            ),
        ] {
            let status = refusal("w", &result);
            assert_eq!((status.code, status.message.as_str()), (code, message));
            assert_eq!(&*status.status, "Failure");
        }
    }
}
