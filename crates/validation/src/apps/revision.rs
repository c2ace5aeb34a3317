//! ControllerRevisions: recorded states that do not change.

use serde_json::Value;

use crate::check::At;
use crate::{Kind, PLAIN};

pub(crate) static KIND: Kind = Kind {
    create: |revision| {
        revision.get("revision").non_negative();
        data(&revision.get("data"));
    },
    update: |revision| {
        revision.get("revision").non_negative();
        let data = revision.get("data");
        if data.old().is_some_and(|old| old != data.value()) {
            data.invalid("field is immutable");
        }
    },
    again: true,
    ..PLAIN
};

fn data(at: &At<'_>) {
    match at.value() {
        Value::Object(_) => {}
        Value::Null => at.required("data is mandatory"),
        _ => at.required("data must be a valid JSON object"),
    }
}
