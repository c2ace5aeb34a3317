//! What is written around a rule: its message, reason and path.

use serde_json::{Value, json};
use validation::At;

use crate::field_path;
use crate::node::Node;

/// In the order in which upstream lists them.
const REASONS: [&str; 4] =
    ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

fn has_newlines(text: &str) -> bool {
    text.contains(['\n', '\r'])
}

pub(super) fn check(rule: &At<'_>, node: &Node) {
    message(rule);
    let expression = rule.get("messageExpression");
    if !expression.is_empty() && expression.text().trim().is_empty() {
        expression.required("messageExpression must be non-empty if specified");
    }
    let reason = rule.get("reason");
    if !reason.is_absent() && !REASONS.contains(&reason.text()) {
        reason.not_supported(&REASONS);
    }
    path(&rule.get("fieldPath"), node);
}

fn message(rule: &At<'_>) {
    let (text, message) = (rule.get("rule").text().trim(), rule.get("message"));
    let trimmed = message.text().trim();
    if text.is_empty() {
        rule.get("rule").required("rule is not specified");
    } else if !message.is_empty() && trimmed.is_empty() {
        message.invalid("must be non-empty if specified");
    } else if has_newlines(trimmed) {
        message.invalid("must not contain line breaks");
    } else if has_newlines(text) && trimmed.is_empty() {
        message.required("message must be specified if rule contains line breaks");
    }
}

fn path(path: &At<'_>, node: &Node) {
    if path.is_empty() {
        return;
    }
    if path.text().trim().is_empty() {
        path.invalid("must be non-empty if specified");
    }
    if has_newlines(path.text()) {
        path.invalid("must not contain line breaks");
    }
    if field_path::parse(path.text(), node).is_none() {
        path.invalid("must be a valid path");
    }
}

/// A rule as upstream shows it: its internal type, in the JSON of Go.
pub(super) fn shown(rule: &Value) -> String {
    let text = |key: &str| json!(rule[key].as_str().unwrap_or("")).to_string();
    let fields = [
        ("Rule", text("rule")),
        ("Message", text("message")),
        ("MessageExpression", text("messageExpression")),
        ("Reason", rule["reason"].to_string()),
        ("FieldPath", text("fieldPath")),
        ("OptionalOldSelf", rule["optionalOldSelf"].to_string()),
    ];
    let fields: Vec<String> = fields.iter().map(|(k, v)| format!("\"{k}\":{v}")).collect();
    let mut out = format!("{{{}}}", fields.join(","));
    for (character, escape) in [('<', "\\u003c"), ('>', "\\u003e"), ('&', "\\u0026")] {
        out = out.replace(character, escape);
    }
    out
}
