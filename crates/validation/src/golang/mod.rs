//! Values as upstream's faults show them when they are whole structures: Go's JSON of its
//! internal types, whose field names and order are those of the Go declarations.

mod diff;

use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::Value;

static TEXT: &str = include_str!("../../layouts.txt");

static LAYOUTS: LazyLock<HashMap<&str, Vec<Field>>> = LazyLock::new(|| {
    let lines = TEXT.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split_once(": ")).map(|(ty, f)| (ty, fields(f))).collect()
});

struct Field {
    name: &'static str,
    json: &'static str,
    /// The field stands in the structure around this one.
    in_parent: bool,
    kind: &'static str,
}

fn fields(text: &'static str) -> Vec<Field> {
    let field = |word: &'static str| {
        let (name, rest) = word.split_once('=')?;
        let (json, kind) = rest.split_once(':')?;
        let (json, in_parent) = json.strip_prefix('^').map_or((json, false), |j| (j, true));
        Some(Field { name, json, in_parent, kind })
    };
    text.split(' ').filter_map(field).collect()
}

/// The value of a type in Go's JSON form, on one line.
pub(crate) fn compact(ty: &str, value: &Value) -> String {
    let mut out = Writer { text: String::new(), indent: None };
    out.structure(ty, value, &Value::Null);
    out.text
}

/// A pod template, whose metadata Go shows among its fields.
pub(crate) fn template(value: &Value) -> String {
    let mut out = Writer { text: String::new(), indent: None };
    out.open('{');
    let meta = value["metadata"].as_object().into_iter().flatten();
    for (at, (key, value)) in meta.enumerate() {
        out.next(at == 0);
        out.key(key);
        out.plain(value);
    }
    if out.text.len() > 1 {
        out.text.push(',');
    }
    out.key("Spec");
    out.structure("core.PodSpec", &value["spec"], &Value::Null);
    out.text.push('}');
    out.text
}

/// What changed, as upstream's unified diff of the indented JSON forms.
pub(crate) fn diff(ty: &str, old: &Value, new: &Value) -> String {
    let pretty = |value: &Value| {
        let mut out = Writer { text: String::new(), indent: Some(0) };
        out.structure(ty, value, &Value::Null);
        out.text
    };
    diff::unified(&pretty(old), &pretty(new))
}

/// Equal as Go's semantic comparison has it: what is unset is as what is empty.
pub(crate) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let within = |a: &serde_json::Map<String, Value>,
                          b: &serde_json::Map<String, Value>| {
                a.iter().all(|(key, value)| same(value, b.get(key).unwrap_or(&Value::Null)))
            };
            within(a, b) && b.iter().all(|(key, value)| a.contains_key(key) || unset(value))
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (a, b) if unset(a) && unset(b) => true,
        (a, b) => a == b,
    }
}

fn unset(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}

struct Writer {
    text: String,
    /// Depth, when lines are broken.
    indent: Option<usize>,
}

impl Writer {
    fn structure(&mut self, ty: &str, value: &Value, parent: &Value) {
        let Some(fields) = LAYOUTS.get(ty) else { return self.plain(value) };
        self.open('{');
        for (at, field) in fields.iter().filter(|field| field.kind != "m").enumerate() {
            self.next(at == 0);
            self.key(field.name);
            let from = if field.in_parent { parent } else { value };
            self.field(field.kind, from.get(field.json).unwrap_or(&Value::Null), value);
        }
        self.close('}', fields.is_empty());
    }

    fn field(&mut self, kind: &str, value: &Value, parent: &Value) {
        let absent = value.is_null();
        match kind {
            "s" | "i" | "b" | "q" if !absent => self.plain(value),
            "s" => self.text.push_str("\"\""),
            "i" => self.text.push('0'),
            "b" => self.text.push_str("false"),
            "q" => self.text.push_str("\"0\""),
            _ if kind.starts_with('T') => self.structure(&kind[1..], value, parent),
            _ if absent => self.text.push_str("null"),
            _ if kind.starts_with("*T") => self.structure(&kind[2..], value, parent),
            _ if kind.starts_with("[T") => {
                let list = value.as_array().map_or(&[][..], Vec::as_slice);
                self.list(list, |out, item| out.structure(&kind[2..], item, value));
            }
            _ => self.plain(value),
        }
    }

    fn plain(&mut self, value: &Value) {
        match value {
            Value::Object(map) => {
                self.open('{');
                for (at, (key, value)) in map.iter().enumerate() {
                    self.next(at == 0);
                    self.key(key);
                    self.plain(value);
                }
                self.close('}', map.is_empty());
            }
            Value::Array(list) => self.list(list, Writer::plain),
            other => {
                let text = other.to_string();
                // Go escapes what HTML would read.
                let text = text.replace('<', "\\u003c").replace('>', "\\u003e");
                self.text.push_str(&text.replace('&', "\\u0026"));
            }
        }
    }

    fn list(&mut self, list: &[Value], mut item: impl FnMut(&mut Self, &Value)) {
        self.open('[');
        for (at, value) in list.iter().enumerate() {
            self.next(at == 0);
            item(self, value);
        }
        self.close(']', list.is_empty());
    }

    fn key(&mut self, key: &str) {
        self.text.push_str(&Value::from(key).to_string());
        self.text.push_str(if self.indent.is_some() { ": " } else { ":" });
    }

    fn open(&mut self, bracket: char) {
        self.text.push(bracket);
        self.indent = self.indent.map(|depth| depth + 1);
    }

    fn next(&mut self, first: bool) {
        if !first {
            self.text.push(',');
        }
        self.line();
    }

    fn close(&mut self, bracket: char, empty: bool) {
        self.indent = self.indent.map(|depth| depth - 1);
        if !empty {
            self.line();
        }
        self.text.push(bracket);
    }

    fn line(&mut self) {
        if let Some(depth) = self.indent {
            self.text.push('\n');
            self.text.extend(std::iter::repeat_n(' ', depth));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn a_taint_shows_as_gos_json() {
        let taint = json!({"key": "a<b", "effect": "NoSchedule"});
        let shown = super::compact("core.Taint", &taint);
        assert_eq!(
            shown,
            r#"{"Key":"a\u003cb","Value":"","Effect":"NoSchedule","TimeAdded":null}"#
        );
    }

    #[test]
    fn the_hosts_namespaces_stand_in_the_pods_context() {
        let spec = json!({"hostNetwork": true, "securityContext": {}});
        let shown = super::compact("core.PodSpec", &spec);
        assert!(
            shown.contains(r#""SecurityContext":{"HostNetwork":true,"HostPID":false"#),
            "{shown}"
        );
    }

    #[test]
    fn a_change_shows_with_its_surroundings() {
        let old = json!({"key": "a", "value": "1"});
        let new = json!({"key": "a", "value": "2"});
        let shown = super::diff("core.Taint", &old, &new);
        assert_eq!(
            shown,
            "@@ -1,6 +1,6 @@\n {\n  \"Key\": \"a\",\n- \"Value\": \"1\",\n+ \"Value\": \"2\",\n  \"Effect\": \"\",\n  \"TimeAdded\": null\n }\n"
        );
    }
}
