//! A field of a file, whichever language that is in, with its place.

use std::path::{Path, PathBuf};

use crate::Error;

/// The subset of both languages that is needed here.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Text(String),
    Flag(bool),
    List(Vec<Value>),
    /// In the file's order.
    Table(Vec<(String, Value)>),
    Other(&'static str),
}

impl Value {
    fn kind(&self) -> &'static str {
        match self {
            Value::Text(_) => "a string",
            Value::Flag(_) => "a boolean",
            Value::List(_) => "a list",
            Value::Table(_) => "a table",
            Value::Other(kind) => kind,
        }
    }
}

impl From<toml::Value> for Value {
    fn from(value: toml::Value) -> Value {
        match value {
            toml::Value::String(text) => Value::Text(text),
            toml::Value::Boolean(flag) => Value::Flag(flag),
            toml::Value::Array(list) => Value::List(list.into_iter().map(Value::from).collect()),
            toml::Value::Table(table) => Value::from(table),
            _ => Value::Other("a number or a date"),
        }
    }
}

impl From<toml::Table> for Value {
    fn from(table: toml::Table) -> Value {
        Value::Table(table.into_iter().map(|(key, value)| (key, value.into())).collect())
    }
}

impl From<serde_yaml_ng::Value> for Value {
    fn from(value: serde_yaml_ng::Value) -> Value {
        use serde_yaml_ng::Value as Yaml;
        match value {
            Yaml::Null => Value::Other("null"),
            Yaml::Bool(flag) => Value::Flag(flag),
            // go-yaml takes a number where a string is wanted, as passwords may be.
            Yaml::Number(number) => Value::Text(number.to_string()),
            Yaml::String(text) => Value::Text(text),
            Yaml::Sequence(list) => Value::List(list.into_iter().map(Value::from).collect()),
            Yaml::Mapping(table) => {
                let pair = |(key, value): (Yaml, Yaml)| match Value::from(key) {
                    Value::Text(key) => (key, value.into()),
                    other => (format!("({})", other.kind()), value.into()),
                };
                Value::Table(table.into_iter().map(pair).collect())
            }
            Yaml::Tagged(tagged) => tagged.value.into(),
        }
    }
}

/// A value and where it stands.
#[derive(Clone)]
pub(crate) struct Field<'a> {
    pub(crate) file: &'a Path,
    pub(crate) path: String,
    pub(crate) value: &'a Value,
}

impl<'a> Field<'a> {
    pub(crate) fn error(&self, why: impl Into<String>) -> Error {
        Error::new(self.file, &self.path, why)
    }

    fn wrong(&self, wanted: &str) -> Error {
        self.error(format!("{wanted} is expected, not {}", self.value.kind()))
    }

    fn at(&self, path: String, value: &'a Value) -> Field<'a> {
        Field { file: self.file, path, value }
    }

    /// The fields of a table that are set (null is not).
    pub(crate) fn table(&self) -> Result<Vec<(&'a str, Field<'a>)>, Error> {
        let mut all = self.entries()?;
        all.retain(|(_, field)| !field.is_null());
        Ok(all)
    }

    pub(crate) fn is_null(&self) -> bool {
        *self.value == Value::Other("null")
    }

    /// The fields of a table, null or not.
    pub(crate) fn entries(&self) -> Result<Vec<(&'a str, Field<'a>)>, Error> {
        let Value::Table(table) = self.value else { return Err(self.wrong("a table")) };
        let field = |(key, value): &'a (String, Value)| {
            let plain = key.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
            let key_text = if plain { key.clone() } else { format!("{key:?}") };
            let dot = if self.path.is_empty() { "" } else { "." };
            (key.as_str(), self.at(format!("{}{dot}{key_text}", self.path), value))
        };
        Ok(table.iter().map(field).collect())
    }

    pub(crate) fn list(&self) -> Result<Vec<Field<'a>>, Error> {
        let Value::List(list) = self.value else { return Err(self.wrong("a list")) };
        let item = |(at, value)| self.at(format!("{}[{at}]", self.path), value);
        Ok(list.iter().enumerate().map(item).collect())
    }

    /// A list, or one item that stands alone.
    pub(crate) fn one_or_more(&self) -> Result<Vec<Field<'a>>, Error> {
        match self.value {
            Value::Text(_) => Ok(vec![self.clone()]),
            Value::List(_) => self.list(),
            _ => Err(self.wrong("a string or a list")),
        }
    }

    pub(crate) fn text(&self) -> Result<&'a str, Error> {
        match self.value {
            Value::Text(text) => Ok(text),
            _ => Err(self.wrong("a string")),
        }
    }

    pub(crate) fn flag(&self) -> Result<bool, Error> {
        match self.value {
            Value::Flag(flag) => Ok(*flag),
            _ => Err(self.wrong("true or false")),
        }
    }

    /// A path, relative ones below the file's own folder; it must be there.
    pub(crate) fn file_name(&self) -> Result<PathBuf, Error> {
        let path = self.file.parent().unwrap_or(Path::new("/")).join(self.text()?);
        match std::fs::metadata(&path) {
            Ok(found) if found.is_file() => Ok(path),
            Ok(_) => Err(self.error(format!("{} is no file", path.display()))),
            Err(e) => Err(self.error(format!("{}: {e}", path.display()))),
        }
    }
}
