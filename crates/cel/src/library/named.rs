//! Formats with names: what a text must be to be a DNS label, a label's value, a date.

use super::{Answer, Function, url};
use crate::time::Time;
use crate::value::Value;

/// A named format.
#[derive(Debug)]
pub struct Format {
    /// As upstream's values show it.
    pub(crate) name: &'static str,
    /// Characters of the pattern it is checked by, or could be: costs count them.
    pub(crate) pattern_size: u64,
    faults: fn(&str) -> Vec<String>,
}

/// By the names that expressions use.
static FORMATS: [(&str, Format); 13] = [
    ("dns1123Label", of("DNS1123Label", 30, api::names::dns_label)),
    ("dns1123Subdomain", of("DNS1123Subdomain", 60, api::names::dns_subdomain)),
    ("dns1035Label", of("DNS1035Label", 30, api::names::dns1035_label)),
    ("qualifiedName", of("QualifiedName", 60, api::names::qualified_name)),
    ("dns1123LabelPrefix", of("DNS1123LabelPrefix", 30, |t| api::names::dns_label(&masked(t)))),
    (
        "dns1123SubdomainPrefix",
        of("DNS1123SubdomainPrefix", 60, |t| api::names::dns_subdomain(&masked(t))),
    ),
    ("dns1035LabelPrefix", of("DNS1035LabelPrefix", 30, |t| api::names::dns1035_label(&masked(t)))),
    ("labelValue", of("LabelValue", 40, api::names::label_value)),
    ("uri", of("URI", 1103, |text| url::parse_request(text).err().into_iter().collect())),
    ("uuid", of("uuid", 70, |text| fault(is_uuid(text), "does not match the UUID format"))),
    ("byte", of("byte", 84, |text| fault(api::base64_canonical(text).is_ok(), "invalid base64"))),
    (
        "date",
        of("date", 71, |text| {
            fault(Time::parse(&format!("{text}T00:00:00Z")).is_some(), "invalid date")
        }),
    ),
    (
        "datetime",
        of("datetime", 71, |text| {
            fault(Time::parse(&text.to_uppercase()).is_some(), "invalid datetime")
        }),
    ),
];

const fn of(name: &'static str, pattern_size: u64, faults: fn(&str) -> Vec<String>) -> Format {
    Format { name, pattern_size, faults }
}

fn fault(fits: bool, message: &str) -> Vec<String> {
    if fits { Vec::new() } else { vec![message.to_owned()] }
}

/// Of a name's beginning, a dash at the end may be followed by more.
fn masked(text: &str) -> String {
    match text.strip_suffix('-') {
        Some(rest) if !rest.is_empty() => {
            let kept = rest.char_indices().last().map_or(0, |(at, _)| at);
            format!("{}a", &rest[..kept])
        }
        _ => text.to_owned(),
    }
}

/// Five groups of hexadecimal digits, dashes between them or not.
fn is_uuid(text: &str) -> bool {
    let mut rest = text;
    for (at, digits) in [8, 4, 4, 4, 12].into_iter().enumerate() {
        if at > 0 {
            rest = rest.strip_prefix('-').unwrap_or(rest);
        }
        match rest.get(..digits) {
            Some(group) if group.bytes().all(|b| b.is_ascii_hexdigit()) => rest = &rest[digits..],
            _ => return false,
        }
    }
    rest.is_empty()
}

fn named(name: &str) -> Option<&'static Format> {
    FORMATS.iter().find(|(known, _)| *known == name).map(|(_, format)| format)
}

/// The function `format.<name>` of each format.
macro_rules! constants {
    ($name:expr, $($known:literal),*) => {
        match $name {
            $($known => Some(|_| named($known).map(|format| Ok(Value::Format(format)))),)*
            _ => None,
        }
    };
}

pub(super) fn find(name: &str) -> Option<Function> {
    match name {
        "validate" => Some(validate),
        "format.named" => Some(|args| {
            let [Value::String(name)] = args else { return None };
            let found = named(name).map(|format| std::sync::Arc::new(Value::Format(format)));
            Some(Ok(Value::Optional(found)))
        }),
        _ => constants!(
            name.strip_prefix("format.")?,
            "dns1123Label",
            "dns1123Subdomain",
            "dns1035Label",
            "qualifiedName",
            "dns1123LabelPrefix",
            "dns1123SubdomainPrefix",
            "dns1035LabelPrefix",
            "labelValue",
            "uri",
            "uuid",
            "byte",
            "date",
            "datetime"
        ),
    }
}

fn validate<'v>(args: &[Value<'v>]) -> Answer<'v> {
    let [Value::Format(format), Value::String(text)] = args else { return None };
    let faults = (format.faults)(text);
    Some(Ok(match faults.is_empty() {
        true => Value::Optional(None),
        false => Value::some(Value::texts(faults)),
    }))
}
