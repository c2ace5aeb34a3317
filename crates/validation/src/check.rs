//! Where in an object a check stands, and the faults it found there.
//!
//! A place knows its parent by reference, so walking a valid object allocates nothing; a path is
//! written out only for a fault. Words are those of apimachinery `field.Error`, which clients match.

mod probe;
mod words;

use std::cell::{Cell, RefCell};
use std::fmt;

use api::status::Cause;
use serde_json::Value;

use words::{absent_as_empty, supported_list, with_detail, with_value, zero_if_absent};

static NULL: Value = Value::Null;

/// Bytes of an object's faults after which further ones are counted only. Each shows a path and a
/// value, both as long as the client likes, and a list can have a fault in each of its items.
const FAULTS_BYTES: usize = 512 * 1024;

/// The faults of one object.
#[derive(Default)]
pub struct Check {
    causes: RefCell<Vec<Cause>>,
    /// Faults found, and the bytes of those that are kept.
    found: Cell<usize>,
    bytes: Cell<usize>,
    /// Through which part of the resource it is written; empty for the whole.
    subresource: &'static str,
    /// Group and version of the request.
    version: (&'static str, &'static str),
}

impl Check {
    /// Of a write through this resource or part of one.
    pub fn of(row: &api::registry::Resource) -> Check {
        let version = (row.group, row.version);
        Check { subresource: row.subresource, version, ..Check::default() }
    }

    /// The object itself, with its former state on updates.
    pub fn root<'a>(&'a self, value: &'a Value, old: Option<&'a Value>) -> At<'a> {
        At { check: self, parent: None, step: Step::Root, value, old }
    }

    pub fn into_causes(self) -> Vec<Cause> {
        self.causes.into_inner()
    }

    fn is_full(&self) -> bool {
        self.bytes.get() >= FAULTS_BYTES
    }

    fn add(&self, reason: &str, message: String, field: impl FnOnce() -> String) {
        self.found.set(self.found.get() + 1);
        if self.is_full() {
            return;
        }
        let cause = Cause { reason: reason.into(), message, field: field() };
        let bytes = cause.message.len() + cause.field.len();
        self.bytes.set(self.bytes.get() + bytes);
        self.causes.borrow_mut().push(cause);
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

    /// A field whose path clients know by another name.
    pub fn get_as<'b>(&'b self, key: &'b str, shown: &'b str) -> At<'b> {
        At { step: Step::Field(shown), ..self.get(key) }
    }

    /// The item at a position, absent when there is none. It has no former state.
    pub fn index<'b>(&'b self, at: usize) -> At<'b> {
        self.item(at, self.value.get(at).unwrap_or(&NULL))
    }

    /// This place with another value: for checks of a value made from the one here.
    pub fn with<'b>(&self, value: &'b Value) -> At<'b>
    where
        'a: 'b,
    {
        At { value, ..*self }
    }

    /// This place with a former state found elsewhere (an item of a list told by its name).
    pub fn beside(&self, old: Option<&'a Value>) -> At<'a> {
        At { old, ..*self }
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

    /// The number, zero when absent.
    pub fn number(&self) -> i64 {
        self.value.as_i64().unwrap_or(0)
    }

    /// How many faults the whole object has so far.
    pub fn faults(&self) -> usize {
        self.check.found.get()
    }

    /// True when `check` finds no fault.
    pub fn sound(&self, check: impl FnOnce()) -> bool {
        let before = self.faults();
        check();
        self.faults() == before
    }

    /// The part of the resource that is written; empty for the whole.
    pub fn subresource(&self) -> &'static str {
        self.check.subresource
    }

    /// Group and version of the request.
    pub fn version(&self) -> (&'static str, &'static str) {
        self.check.version
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
    /// A message that shows a value, made only while faults are still kept: each fault of a long list
    /// may show all of it.
    pub(super) fn valued(&self, what: &str, value: &Value, detail: &str) -> String {
        if self.check.is_full() { String::new() } else { with_value(what, value, detail) }
    }

    fn fault(&self, reason: &str, message: String) {
        self.check.add(reason, message, || self.to_string());
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
        self.fault("FieldValueInvalid", self.valued("Invalid value", shown, detail));
    }

    /// The value is of a type the field does not take.
    pub fn type_invalid(&self, detail: &str) {
        self.fault("FieldValueTypeInvalid", self.valued("Invalid value", self.value, detail));
    }

    pub fn duplicate(&self) {
        self.duplicate_as(self.value);
    }

    pub fn duplicate_as(&self, shown: &Value) {
        self.fault("FieldValueDuplicate", self.valued("Duplicate value", shown, ""));
    }

    pub fn not_found(&self) {
        let shown = absent_as_empty(self.value);
        self.fault("FieldValueNotFound", self.valued("Not found", shown, ""));
    }

    /// `supported` in the order in which it is told.
    pub fn not_supported(&self, supported: &[&str]) {
        let detail = supported_list(supported);
        self.fault(
            "FieldValueNotSupported",
            self.valued("Unsupported value", absent_as_empty(self.value), &detail),
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

    pub fn too_few(&self, min: usize) {
        let unit = if min == 1 { "item" } else { "items" };
        let message = format!("Too few: {}: must have at least {min} {unit}", self.len());
        self.fault("FieldValueTooFew", message);
    }

    pub fn too_short(&self, min: usize) {
        let unit = if min == 1 { "character" } else { "characters" };
        let detail = format!("must be at least {min} {unit}");
        self.fault("FieldValueTooShort", self.valued("Too short", self.value, &detail));
    }

    /// A text that is wrong; an absent one is the empty text.
    pub fn invalid_text(&self, detail: &str) {
        self.invalid_as(absent_as_empty(self.value), detail);
    }

    /// A number that is wrong; an absent one is zero.
    pub fn invalid_number(&self, detail: &str) {
        self.invalid_as(zero_if_absent(self.value), detail);
    }

    pub fn duplicate_of(&self, shown: &Value, detail: &str) {
        self.fault("FieldValueDuplicate", self.valued("Duplicate value", shown, detail));
    }

    pub fn not_found_of(&self, detail: &str) {
        self.fault("FieldValueNotFound", self.valued("Not found", self.value, detail));
    }

    /// As [`At::not_supported`], of a value that stands elsewhere.
    pub fn not_supported_as(&self, shown: &Value, supported: &[&str]) {
        self.with(shown).not_supported(supported);
    }

    /// A fault that shows the value as upstream's internal type.
    pub fn invalid_struct(&self, ty: &str, detail: &str) {
        let shown = crate::golang::compact(ty, self.value);
        self.fault("FieldValueInvalid", format!("Invalid value: {shown}: {detail}"));
    }

    pub fn duplicate_struct(&self, ty: &str, detail: &str) {
        let shown = crate::golang::compact(ty, self.value);
        self.fault(
            "FieldValueDuplicate",
            with_detail(&format!("Duplicate value: {shown}"), detail),
        );
    }

    /// A fault that shows no value.
    pub fn invalid_omitted(&self, detail: &str) {
        self.fault("FieldValueInvalid", with_detail("Invalid value", detail));
    }

    /// A pod template as upstream shows it: metadata inline, then its internal spec.
    pub fn invalid_template(&self, detail: &str) {
        let shown = crate::golang::template(self.value);
        self.fault("FieldValueInvalid", format!("Invalid value: {shown}: {detail}"));
    }

    /// An unsupported kind of structure, shown whole.
    pub fn not_supported_struct(&self, ty: &str, supported: &[&str]) {
        let shown = crate::golang::compact(ty, self.value);
        let message = format!("Unsupported value: {shown}: {}", supported_list(supported));
        self.fault("FieldValueNotSupported", message);
    }

    /// An unsupported value that is null when it is absent.
    pub fn not_supported_shown(&self, supported: &[&str]) {
        let message = self.valued("Unsupported value", self.value, &supported_list(supported));
        self.fault("FieldValueNotSupported", message);
    }

    /// A fault of a place that is written otherwise.
    pub fn report_at(&self, field: &str, reason: &str, message: impl Into<String>) {
        self.check.add(reason, message.into(), || field.into());
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

    /// There at all; zero is a value.
    pub fn need_present(&self) {
        if self.is_absent() {
            self.required("");
        }
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

    /// An enumeration that must be there.
    pub fn need_one_of(&self, supported: &[&str]) {
        if self.need() {
            self.one_of(supported);
        }
    }

    /// One of a closed set when it is there at all.
    pub fn one_of_if_set(&self, supported: &[&str]) {
        if !self.is_absent() {
            self.one_of(supported);
        }
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
                self.invalid_as(value, &fault);
            }
        }
    }
}

/// The path, as clients see it: `spec.containers[0].env`, `data[key]`.
impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.check.is_full() {
            return f.write_str("...");
        }
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
    #[test]
    fn faults_have_a_budget() {
        let long = "k".repeat(100_000);
        let object = json!({"map": {long.as_str(): vec![-1; 10_000]}});
        let check = Check::default();
        let root = check.root(&object, None);
        for (_, list) in root.get("map").entries() {
            list.items().for_each(|item| item.non_negative());
        }
        assert_eq!(root.faults(), 10_000);
        let kept: usize = check.into_causes().iter().map(|c| c.field.len()).sum();
        assert!((1..1_000_000).contains(&kept), "{kept} bytes");
    }
}
