//! Where in an object a check stands, and the faults it found there.
//!
//! A place knows its parent by reference, so walking a valid object allocates nothing; a path is
//! written out only for a fault. Words are those of apimachinery `field.Error`, which clients match.

mod probe;

use std::cell::RefCell;
use std::fmt;

use api::status::Cause;
use serde_json::Value;

static NULL: Value = Value::Null;

/// The faults of one object.
#[derive(Default)]
pub struct Check {
    causes: RefCell<Vec<Cause>>,
}

impl Check {
    /// The object itself, with its former state on updates.
    pub fn root<'a>(&'a self, value: &'a Value, old: Option<&'a Value>) -> At<'a> {
        At { check: self, parent: None, step: Step::Root, value, old }
    }

    pub fn into_causes(self) -> Vec<Cause> {
        self.causes.into_inner()
    }
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Root,
    Field(&'a str),
    Index(usize),
    Key(&'a str),
}

/// A place in an object, its value there (null when absent), and the value it had before an update.
#[derive(Clone, Copy)]
pub struct At<'a> {
    check: &'a Check,
    parent: Option<&'a At<'a>>,
    step: Step<'a>,
    value: &'a Value,
    old: Option<&'a Value>,
}

/// Moving about.
impl<'a> At<'a> {
    /// A field, absent or not.
    pub fn get<'b>(&'b self, key: &'b str) -> At<'b> {
        let value = self.value.get(key).unwrap_or(&NULL);
        let old = self.old.map(|o| o.get(key).unwrap_or(&NULL));
        At { check: self.check, parent: Some(self), step: Step::Field(key), value, old }
    }

    /// Items of a list. They have no former state: positions do not identify items.
    pub fn items<'b>(&'b self) -> impl Iterator<Item = At<'b>> {
        let list = self.value.as_array().map_or(&[][..], Vec::as_slice);
        list.iter().enumerate().map(|(at, value)| self.item(at, value))
    }

    /// Items of a list beside the former item at the same position, if there was one.
    pub fn items_in_place<'b>(&'b self) -> impl Iterator<Item = At<'b>> {
        self.items().enumerate().map(|(at, item)| {
            let old = self.old.map(|o| o.get(at).unwrap_or(&NULL));
            At { old, ..item }
        })
    }

    fn item<'b>(&'b self, at: usize, value: &'b Value) -> At<'b> {
        At { check: self.check, parent: Some(self), step: Step::Index(at), value, old: None }
    }

    /// Entries of a map, in the order of their keys.
    pub fn entries<'b>(&'b self) -> impl Iterator<Item = (&'b str, At<'b>)> {
        let map = self.value.as_object().into_iter().flatten();
        map.map(|(key, value)| (key.as_str(), self.entry(key, value)))
    }

    fn entry<'b>(&'b self, key: &'b str, value: &'b Value) -> At<'b> {
        let old = self.old.map(|o| o.get(key).unwrap_or(&NULL));
        At { check: self.check, parent: Some(self), step: Step::Key(key), value, old }
    }

    /// The place of a key of this map, for a fault of the key itself.
    pub fn key<'b>(&'b self, key: &'b str) -> At<'b> {
        self.entry(key, self.value.get(key).unwrap_or(&NULL))
    }

    /// The same place without a former state: checked as if it were new.
    pub fn as_new(&self) -> At<'a> {
        At { old: None, ..*self }
    }
}

/// What is there.
impl<'a> At<'a> {
    pub fn value(&self) -> &'a Value {
        self.value
    }

    /// The value before the update; none when the object (or this list item) is new.
    pub fn old(&self) -> Option<&'a Value> {
        self.old
    }

    pub fn is_absent(&self) -> bool {
        self.value.is_null()
    }

    /// Absent, or Go's zero value.
    pub fn is_empty(&self) -> bool {
        match self.value {
            Value::Null => true,
            Value::String(s) => s.is_empty(),
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
            Value::Number(n) => n.as_f64() == Some(0.0),
            Value::Bool(b) => !b,
        }
    }

    /// The text, empty when absent.
    pub fn text(&self) -> &'a str {
        self.value.as_str().unwrap_or("")
    }

    pub fn int(&self) -> Option<i64> {
        self.value.as_i64()
    }

    pub fn is_true(&self) -> bool {
        self.value == &Value::Bool(true)
    }

    pub fn len(&self) -> usize {
        self.value.as_array().map_or(0, Vec::len)
    }

    /// An update that leaves this as it was.
    pub fn unchanged(&self) -> bool {
        self.old == Some(self.value)
    }
}

/// Finding fault.
impl At<'_> {
    fn fault(&self, reason: &str, message: String) {
        let cause = Cause { reason: reason.into(), message, field: self.to_string() };
        self.check.causes.borrow_mut().push(cause);
    }

    pub fn required(&self, detail: &str) {
        self.fault("FieldValueRequired", with_detail("Required value", detail));
    }

    pub fn forbidden(&self, detail: &str) {
        self.fault("FieldValueForbidden", with_detail("Forbidden", detail));
    }

    pub fn invalid(&self, detail: &str) {
        self.invalid_as(self.value, detail);
    }

    /// A fault that shows another value than the one here.
    pub fn invalid_as(&self, shown: &Value, detail: &str) {
        self.fault("FieldValueInvalid", with_value("Invalid value", shown, detail));
    }

    /// The value is of a type the field does not take.
    pub fn type_invalid(&self, detail: &str) {
        self.fault("FieldValueTypeInvalid", with_value("Invalid value", self.value, detail));
    }

    pub fn duplicate(&self) {
        self.duplicate_as(self.value);
    }

    pub fn duplicate_as(&self, shown: &Value) {
        self.fault("FieldValueDuplicate", with_value("Duplicate value", shown, ""));
    }

    pub fn not_found(&self) {
        self.fault("FieldValueNotFound", with_value("Not found", self.value, ""));
    }

    /// `supported` in the order in which it is told.
    pub fn not_supported(&self, supported: &[&str]) {
        let quoted: Vec<String> = supported.iter().map(|s| quote(s)).collect();
        let detail = match quoted.is_empty() {
            true => String::new(),
            false => format!("supported values: {}", quoted.join(", ")),
        };
        self.fault(
            "FieldValueNotSupported",
            with_value("Unsupported value", absent_as_empty(self.value), &detail),
        );
    }

    pub fn too_long(&self, max_bytes: usize) {
        let unit = if max_bytes == 1 { "byte" } else { "bytes" };
        let message = format!("Too long: may not be more than {max_bytes} {unit}");
        self.fault("FieldValueTooLong", message);
    }

    pub fn too_long_characters(&self, max: usize) {
        let unit = if max == 1 { "character" } else { "characters" };
        self.fault("FieldValueTooLong", format!("Too long: may not be more than {max} {unit}"));
    }

    pub fn too_many(&self, max: usize) {
        let unit = if max == 1 { "item" } else { "items" };
        let message = format!("Too many: {}: must have at most {max} {unit}", self.len());
        self.fault("FieldValueTooMany", message);
    }

    /// Any fault, told elsewhere.
    pub fn report(&self, reason: &str, message: impl Into<String>) {
        self.fault(reason, message.into());
    }
}

/// Common checks; each says nothing when all is well.
impl At<'_> {
    /// Present and not empty.
    pub fn need(&self) -> bool {
        let there = !self.is_empty();
        if !there {
            self.required("");
        }
        there
    }

    /// Zero or more; an absent number is zero.
    pub fn non_negative(&self) {
        if self.int().is_some_and(|n| n < 0) {
            self.invalid("must be greater than or equal to 0");
        }
    }

    /// A number from `low` to `high`.
    pub fn between(&self, low: i64, high: i64) {
        if !(low..=high).contains(&self.int().unwrap_or(0)) {
            self.invalid_as(
                zero_if_absent(self.value),
                &format!("must be between {low} and {high}, inclusive"),
            );
        }
    }

    /// One of a closed set; false (and told) when it is not.
    pub fn one_of(&self, supported: &[&str]) -> bool {
        let known = supported.contains(&self.text());
        if !known {
            self.not_supported(supported);
        }
        known
    }

    /// May not differ from what it was.
    pub fn immutable(&self) {
        if self.old.is_some_and(|old| old != self.value) {
            self.invalid("field is immutable");
        }
    }

    /// Each fault that a rule of [`api::names`] finds in the text here.
    pub fn named(&self, rule: fn(&str) -> Vec<String>) {
        for fault in rule(self.text()) {
            self.invalid_as(absent_as_empty(self.value), &fault);
        }
    }

    /// A map of labels.
    pub fn labels(&self) {
        for (key, value) in self.value.as_object().into_iter().flatten() {
            for fault in api::names::qualified_name(key) {
                self.invalid_as(&key.as_str().into(), &fault);
            }
            for fault in api::names::label_value(value.as_str().unwrap_or("")) {
                self.key(key).invalid(&fault);
            }
        }
    }
}

fn absent_as_empty(value: &Value) -> &Value {
    static EMPTY: Value = Value::String(String::new());
    if value.is_null() { &EMPTY } else { value }
}

fn zero_if_absent(value: &Value) -> &Value {
    static ZERO: std::sync::LazyLock<Value> = std::sync::LazyLock::new(|| 0.into());
    if value.is_null() { &ZERO } else { value }
}

fn with_detail(what: &str, detail: &str) -> String {
    if detail.is_empty() { what.into() } else { format!("{what}: {detail}") }
}

fn with_value(what: &str, value: &Value, detail: &str) -> String {
    with_detail(&format!("{what}: {}", shown(value)), detail)
}

/// A value as `field.Error` shows it: texts quoted as Go quotes, the rest as JSON.
pub(crate) fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => quote(text),
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

/// The path, as clients see it: `spec.containers[0].env`, `data[key]`.
impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
            if let (Step::Field(_), false) = (self.step, matches!(parent.step, Step::Root)) {
                f.write_str(".")?;
            }
        }
        match self.step {
            Step::Root => Ok(()),
            Step::Field(name) => f.write_str(name),
            Step::Index(at) => write!(f, "[{at}]"),
            Step::Key(key) => write!(f, "[{key}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Check;

    #[test]
    fn paths_and_words_are_the_originals() {
        let new = json!({"spec": {"list": [{"n": -1}], "map": {"a b": "x"}, "kind": "B\"ad"}});
        let old = json!({"spec": {"kind": "Good"}});
        let check = Check::default();
        let root = check.root(&new, Some(&old));
        let spec = root.get("spec");
        for item in spec.get("list").items() {
            item.get("n").non_negative();
            item.get("name").need();
        }
        spec.get("map").labels();
        spec.get("kind").immutable();
        spec.get("kind").one_of(&["Good"]);
        let said: Vec<String> =
            check.into_causes().iter().map(|c| format!("{}: {}", c.field, c.message)).collect();
        assert_eq!(
            said[0],
            "spec.list[0].n: Invalid value: -1: must be greater than or equal to 0"
        );
        assert_eq!(said[1], "spec.list[0].name: Required value");
        assert!(said[2].starts_with("spec.map: Invalid value: \"a b\": name part must consist"));
        assert_eq!(said[3], r#"spec.kind: Invalid value: "B\"ad": field is immutable"#);
        assert_eq!(said[4], r#"spec.kind: Unsupported value: "B\"ad": supported values: "Good""#);
    }
}
