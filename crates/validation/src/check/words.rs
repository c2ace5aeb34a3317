//! Values and details as upstream words them.

use serde_json::Value;

pub(super) fn supported_list(supported: &[&str]) -> String {
    let quoted: Vec<String> = supported.iter().map(|s| quote(s)).collect();
    match quoted.is_empty() {
        true => String::new(),
        false => format!("supported values: {}", quoted.join(", ")),
    }
}

pub(super) fn absent_as_empty(value: &Value) -> &Value {
    static EMPTY: Value = Value::String(String::new());
    if value.is_null() { &EMPTY } else { value }
}

pub(super) fn zero_if_absent(value: &Value) -> &Value {
    static ZERO: std::sync::LazyLock<Value> = std::sync::LazyLock::new(|| 0.into());
    if value.is_null() { &ZERO } else { value }
}

pub(super) fn with_detail(what: &str, detail: &str) -> String {
    if detail.is_empty() { what.into() } else { format!("{what}: {detail}") }
}

pub(super) fn with_value(what: &str, value: &Value, detail: &str) -> String {
    with_detail(&format!("{what}: {}", shown(value)), detail)
}

/// A value as `field.Error` shows it: texts quoted as Go quotes, the rest as JSON.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => quote(text),
        // Upstream's order of fields, where that is not the alphabet's.
        Value::Object(selector) if selector.contains_key("matchExpressions") => {
            let labels = selector.get("matchLabels").filter(|l| !l.is_null());
            let labels = labels.map(|l| format!("\"matchLabels\":{l},")).unwrap_or_default();
            format!("{{{labels}\"matchExpressions\":{}}}", selector["matchExpressions"])
        }
        other => other.to_string(),
    }
}

/// Go's `strconv.Quote`.
fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 || c == '\u{7f}' => {
                out.push_str(&format!("\\x{:02x}", c as u32))
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
