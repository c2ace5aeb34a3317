//! The query string: decoded once, for every verb, with upstream's errors.

use api::Status;
use api::selector::{FieldSelector, LabelSelector};

/// Decoded `key=value` pairs, in order.
#[derive(Debug, Clone, Default)]
pub struct Query {
    pairs: Vec<(String, String)>,
}

/// How a body's unknown and duplicate fields are treated (KEP-2885).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

impl Query {
    pub fn parse(text: &str) -> Query {
        let pairs = text.split('&').filter(|p| !p.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (percent_decode(key), percent_decode(value))
        });
        Query { pairs: pairs.collect() }
    }

    pub fn get(&self, key: &str) -> Option<&str> {
        self.pairs.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs.iter().filter(move |(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    pub fn flag(&self, key: &str) -> bool {
        self.get(key).is_some_and(is_true)
    }

    pub fn number(&self, key: &str) -> Result<Option<i64>, Status> {
        match self.get(key) {
            None | Some("") => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|_| {
                Status::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))
            }),
        }
    }

    /// `dryRun=All` is the only value there is. `options` is the kind that refusals name.
    pub fn dry_run(&self, options: &str) -> Result<bool, Status> {
        match self.all("dryRun").find(|value| *value != "All") {
            Some(other) => Err(unsupported(options, "dryRun", other, r#""All""#)),
            None => Ok(self.get("dryRun").is_some()),
        }
    }

    /// `options` is the kind that refusals name.
    pub fn field_validation(&self, options: &str) -> Result<FieldValidation, Status> {
        match self.get("fieldValidation") {
            None | Some("" | "Warn") => Ok(FieldValidation::Warn),
            Some("Ignore") => Ok(FieldValidation::Ignore),
            Some("Strict") => Ok(FieldValidation::Strict),
            Some(other) => {
                let supported = r#""", "Ignore", "Strict", "Warn""#;
                Err(unsupported(options, "fieldValidation", other, supported))
            }
        }
    }

    pub fn label_selector(&self) -> Result<LabelSelector, Status> {
        let text = self.get("labelSelector").unwrap_or("");
        LabelSelector::parse(text).map_err(Status::bad_request)
    }

    pub fn field_selector(&self) -> Result<FieldSelector, Status> {
        let text = self.get("fieldSelector").unwrap_or("");
        FieldSelector::parse(text).map_err(Status::bad_request)
    }
}

fn unsupported(options: &str, field: &str, value: &str, supported: &str) -> Status {
    let message = format!("Unsupported value: {value:?}: supported values: {supported}");
    let cause = crate::meta::cause("FieldValueNotSupported", field, message);
    Status::invalid("meta.k8s.io", options, "", vec![cause])
}

/// Decodes `%xx` and `+`; malformed escapes stay as they are.
fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = text.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (bytes[at], escaped) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 2;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Upstream's booleans: what is there and neither `0` nor `false`, however written, is true
/// (apimachinery `runtime/conversion.go`); Python's client writes `True` and `False`.
pub fn is_true(text: &str) -> bool {
    text != "0" && !text.eq_ignore_ascii_case("false")
}
