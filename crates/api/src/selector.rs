//! Label and field selectors: parsing with upstream's errors, and matching.
//!
//! Grammar: apimachinery `labels.Parse` (`a=b`, `a==b`, `a!=b`, `a in (b,c)`, `a notin (b)`,
//! `a`, `!a`, `a>1`, `a<1`) and `fields.ParseSelector` (`=`, `==`, `!=` with `\,` `\=` escapes).

mod parse;

use crate::object::Meta;

/// All requirements must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct LabelSelector {
    pub requirements: Vec<Requirement>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Requirement {
    pub key: String,
    pub operator: Operator,
    pub values: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

impl LabelSelector {
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Parses the query form; the error is a sentence for a 400.
    pub fn parse(text: &str) -> Result<LabelSelector, String> {
        parse::labels(text)
    }

    /// From `meta/v1.LabelSelector` as JSON; an absent selector matches nothing in most kinds, so
    /// the caller decides that case.
    pub fn from_json(value: &serde_json::Value) -> LabelSelector {
        let mut requirements = Vec::new();
        for (key, v) in value["matchLabels"].as_object().into_iter().flatten() {
            let values = vec![v.as_str().unwrap_or("").to_owned()];
            requirements.push(Requirement { key: key.clone(), operator: Operator::In, values });
        }
        for e in value["matchExpressions"].as_array().into_iter().flatten() {
            let operator = match e["operator"].as_str() {
                Some("In") => Operator::In,
                Some("NotIn") => Operator::NotIn,
                Some("Exists") => Operator::Exists,
                _ => Operator::DoesNotExist,
            };
            let values = e["values"].as_array().into_iter().flatten();
            requirements.push(Requirement {
                key: e["key"].as_str().unwrap_or("").to_owned(),
                operator,
                values: values.filter_map(|v| v.as_str()).map(str::to_owned).collect(),
            });
        }
        LabelSelector { requirements }
    }

    /// Matches an object's labels.
    pub fn matches(&self, meta: &Meta) -> bool {
        self.matches_with(|key| meta.label(key))
    }

    /// Matches whatever `label` looks up.
    pub fn matches_with<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements.iter().all(|r| r.matches(label(&r.key)))
    }
}

impl Requirement {
    fn matches(&self, value: Option<&str>) -> bool {
        let listed = |v: &str| self.values.iter().any(|x| x == v);
        match self.operator {
            Operator::In => value.is_some_and(listed),
            Operator::NotIn => !value.is_some_and(listed),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan => self.compare(value).is_some_and(|o| o.is_gt()),
            Operator::LessThan => self.compare(value).is_some_and(|o| o.is_lt()),
        }
    }

    fn compare(&self, value: Option<&str>) -> Option<std::cmp::Ordering> {
        let left: i64 = value?.parse().ok()?;
        let right: i64 = self.values.first()?.parse().ok()?;
        Some(left.cmp(&right))
    }
}

/// `field = value` or `field != value`, all of which must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct FieldSelector {
    pub requirements: Vec<FieldRequirement>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FieldRequirement {
    pub field: String,
    pub value: String,
    pub equal: bool,
}

impl FieldSelector {
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    pub fn parse(text: &str) -> Result<FieldSelector, String> {
        let mut requirements = Vec::new();
        for term in split_unescaped(text) {
            if term.is_empty() {
                continue;
            }
            requirements.push(parse_term(&term)?);
        }
        Ok(FieldSelector { requirements })
    }

    /// `metadata.name`'s exact value, when the selector asks for one object.
    pub fn name(&self) -> Option<&str> {
        self.value_of("metadata.name")
    }

    /// The value that a field must have, when the selector asks for one.
    pub fn value_of(&self, field: &str) -> Option<&str> {
        let one = |r: &&FieldRequirement| r.equal && r.field == field;
        self.requirements.iter().find(one).map(|r| r.value.as_str())
    }

    /// Matches an object whose selectable fields are those of `selectable`, in its index's order.
    pub fn matches(&self, meta: &Meta, selectable: &[&str]) -> bool {
        self.requirements.iter().all(|r| {
            let value = match r.field.as_str() {
                "metadata.name" => &meta.name,
                "metadata.namespace" => &meta.namespace,
                field => match selectable.iter().position(|s| *s == field) {
                    Some(at) => &meta.fields[at],
                    None => return false,
                },
            };
            (value.as_ref() == r.value) == r.equal
        })
    }
}

fn split_unescaped(text: &str) -> Vec<String> {
    let (mut terms, mut term, mut escaped) = (Vec::new(), String::new(), false);
    for c in text.chars() {
        if escaped {
            term.push('\\');
            term.push(c);
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else if c == ',' {
            terms.push(std::mem::take(&mut term));
        } else {
            term.push(c);
        }
    }
    terms.push(term);
    terms
}

fn parse_term(term: &str) -> Result<FieldRequirement, String> {
    for (token, equal) in [("!=", false), ("==", true), ("=", true)] {
        if let Some((field, value)) = term.split_once(token) {
            let value = value.replace("\\,", ",").replace("\\=", "=").replace("\\\\", "\\");
            return Ok(FieldRequirement { field: field.to_owned(), value, equal });
        }
    }
    Err(format!("invalid selector: '{term}'; can't understand '{term}'"))
}
