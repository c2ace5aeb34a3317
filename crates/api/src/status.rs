//! `meta/v1.Status`: the one form in which the API reports failure, with the texts clients match.
//!
//! Reasons and codes follow apimachinery's `errors` package; causes carry a field path, a reason
//! and a message each.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A failure (or, rarely, a success) as clients see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    #[serde(default)]
    pub kind: String,
    #[serde(default)]
    pub api_version: String,
    #[serde(default)]
    pub metadata: ListMeta,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub status: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Details>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub code: u16,
}

/// The metadata of a Status: empty but for continue tokens of expired lists.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListMeta {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
    #[serde(default, skip_serializing_if = "String::is_empty", rename = "continue")]
    pub continue_token: String,
}

/// What the failure is about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    /// Seconds after which a retry makes sense.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retry_after_seconds: u16,
}

/// One field's fault.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
}

fn is_zero(n: &u16) -> bool {
    *n == 0
}

/// `resource.group`, or `resource` alone in the core group, as messages name it.
pub fn qualified(group: &str, resource: &str) -> String {
    if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") }
}

impl Status {
    /// A failure without details.
    pub fn failure(code: u16, reason: &str, message: impl Into<String>) -> Status {
        Status {
            kind: "Status".into(),
            api_version: "v1".into(),
            metadata: ListMeta::default(),
            status: "Failure".into(),
            message: message.into(),
            reason: reason.into(),
            details: None,
            code,
        }
    }

    fn about(mut self, group: &str, kind: &str, name: &str) -> Status {
        self.details = Some(Details {
            name: name.into(),
            group: group.into(),
            kind: kind.into(),
            ..Details::default()
        });
        self
    }

    pub fn with_causes(mut self, causes: Vec<Cause>) -> Status {
        self.details.get_or_insert_with(Details::default).causes = causes;
        self
    }

    pub fn with_retry_after(mut self, seconds: u16) -> Status {
        self.details.get_or_insert_with(Details::default).retry_after_seconds = seconds;
        self
    }

    pub fn bad_request(message: impl Into<String>) -> Status {
        Status::failure(400, "BadRequest", message)
    }

    pub fn unauthorized() -> Status {
        Status::failure(401, "Unauthorized", "Unauthorized")
    }

    /// `why` is the authoriser's or admission's sentence, after "is forbidden: ".
    pub fn forbidden(group: &str, resource: &str, name: &str, why: &str) -> Status {
        let subject = match (resource, name) {
            ("", _) => "forbidden".to_owned(),
            (_, "") => format!("{} is forbidden", qualified(group, resource)),
            _ => format!("{} \"{name}\" is forbidden", qualified(group, resource)),
        };
        let s = Status::failure(403, "Forbidden", format!("{subject}: {why}"));
        s.about(group, resource, name)
    }

    pub fn not_found(group: &str, resource: &str, name: &str) -> Status {
        let message = format!("{} \"{name}\" not found", qualified(group, resource));
        Status::failure(404, "NotFound", message).about(group, resource, name)
    }

    /// An unknown path.
    pub fn no_such_path() -> Status {
        let s =
            Status::failure(404, "NotFound", "the server could not find the requested resource");
        s.about("", "", "")
    }

    pub fn method_not_allowed() -> Status {
        let message = "the server does not allow this method on the requested resource";
        Status::failure(405, "MethodNotAllowed", message).about("", "", "")
    }

    pub fn not_acceptable(accepted: &str) -> Status {
        let m = format!("only the following media types are accepted: {accepted}");
        Status::failure(406, "NotAcceptable", m)
    }

    pub fn unsupported_media_type(accepted: &str) -> Status {
        let m = format!(
            "the body of the request was in an unknown format - accepted media types include: {accepted}"
        );
        Status::failure(415, "UnsupportedMediaType", m)
    }

    pub fn already_exists(group: &str, resource: &str, name: &str) -> Status {
        let message = format!("{} \"{name}\" already exists", qualified(group, resource));
        Status::failure(409, "AlreadyExists", message).about(group, resource, name)
    }

    /// An update that lost a race, or an unmet precondition; `why` completes the sentence.
    pub fn conflict(group: &str, resource: &str, name: &str, why: &str) -> Status {
        let q = qualified(group, resource);
        let message = format!("Operation cannot be fulfilled on {q} \"{name}\": {why}");
        Status::failure(409, "Conflict", message).about(group, resource, name)
    }

    /// The conflict every client library knows how to retry.
    pub fn modified(group: &str, resource: &str, name: &str) -> Status {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Status::conflict(group, resource, name, why)
    }

    /// Validation failed: one cause a fault.
    pub fn invalid(group: &str, kind: &str, name: &str, causes: Vec<Cause>) -> Status {
        let mut faults: Vec<String> = Vec::new();
        for cause in &causes {
            let fault = format!("{}: {}", cause.field, cause.message);
            // The causes keep what the sentence says once.
            if !faults.contains(&fault) {
                faults.push(fault);
            }
        }
        let list = match faults.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let message = format!("{} \"{name}\" is invalid: {list}", qualified(group, kind));
        Status::failure(422, "Invalid", message).about(group, kind, name).with_causes(causes)
    }

    pub fn gone(message: impl Into<String>) -> Status {
        Status::failure(410, "Expired", message)
    }

    pub fn too_large(limit: usize) -> Status {
        let message = format!("Request entity too large: limit is {limit}");
        Status::failure(413, "RequestEntityTooLarge", message)
    }

    pub fn internal(message: impl Into<String>) -> Status {
        let message = message.into();
        let cause = Cause { message: message.clone(), ..Cause::default() };
        Status::failure(500, "InternalError", format!("Internal error occurred: {message}"))
            .with_causes(vec![cause])
    }

    pub fn unavailable(message: impl Into<String>) -> Status {
        Status::failure(503, "ServiceUnavailable", message)
    }

    pub fn timeout(message: impl Into<String>) -> Status {
        Status::failure(504, "Timeout", message)
    }

    /// What DELETE answers when the object is gone at once.
    pub fn deleted(group: &str, resource: &str, name: &str, uid: &str) -> Status {
        let mut s = Status::failure(200, "", "").about(group, resource, name);
        s.status = "Success".into();
        s.code = 0;
        if let Some(d) = s.details.as_mut() {
            d.uid = uid.into();
        }
        s
    }

    pub fn to_value(&self) -> Value {
        serde_json::to_value(self).expect("a Status always encodes")
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Status {}
/// One cause.
pub fn cause(reason: &str, field: impl Into<String>, message: impl Into<String>) -> Cause {
    Cause { reason: reason.into(), message: message.into(), field: field.into() }
}

/// A value that is not valid (`FieldValueInvalid`).
pub fn invalid(field: impl Into<String>, value: &Value, detail: &str) -> Cause {
    cause("FieldValueInvalid", field, format!("Invalid value: {}: {detail}", shown(value)))
}

/// A value that is missing (`FieldValueRequired`).
pub fn required(field: impl Into<String>, detail: &str) -> Cause {
    let message = if detail.is_empty() {
        "Required value".into()
    } else {
        format!("Required value: {detail}")
    };
    cause("FieldValueRequired", field, message)
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(s) => format!("{s:?}"),
        other => other.to_string(),
    }
}
