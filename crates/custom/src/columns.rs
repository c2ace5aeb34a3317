//! `additionalPrinterColumns`, with the part of JSONPath that columns use.

use serde_json::Value;

/// One column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub name: Box<str>,
    pub kind: Box<str>,
    pub format: Box<str>,
    pub description: Box<str>,
    pub priority: i64,
    path: Path,
}

/// `.spec.list[0].x`, `.status.conditions[?(@.type=="Ready")].status`, `.metadata.labels.a\.b`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Path(Vec<Step>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Field(Box<str>),
    Index(i64),
    Every,
    /// Items whose field at the path has this value.
    Where(Path, Value),
}

impl Column {
    pub(crate) fn all(columns: &Value) -> Vec<Column> {
        columns.as_array().into_iter().flatten().map(Column::parse).collect()
    }

    fn parse(column: &Value) -> Column {
        let text = |key: &str| column[key].as_str().unwrap_or("");
        let path = text("jsonPath");
        let description = match text("description") {
            "" => format!("Custom resource definition column (in JSONPath format): {path}"),
            given => given.to_owned(),
        };
        Column {
            name: text("name").into(),
            kind: text("type").into(),
            format: text("format").into(),
            description: description.into(),
            priority: column["priority"].as_i64().unwrap_or(0),
            path: Path::parse(path).unwrap_or_default(),
        }
    }

    /// The cell: the value, several of them joined, or null.
    pub fn cell(&self, object: &Value) -> Value {
        let found = self.path.find(object);
        match found.as_slice() {
            [] => Value::Null,
            [one] => self.typed(one),
            many => {
                let texts: Vec<String> = many.iter().map(|v| plain(v)).collect();
                texts.join(",").into()
            }
        }
    }

    fn typed(&self, value: &Value) -> Value {
        match (&*self.kind, value) {
            (_, Value::Null) => Value::Null,
            ("integer", Value::Number(n)) if n.is_f64() => {
                n.as_f64().map_or(Value::Null, |n| (n as i64).into())
            }
            ("integer" | "number", Value::Number(_)) | ("boolean", Value::Bool(_)) => value.clone(),
            ("integer" | "number" | "boolean", _) => Value::Null,
            (_, value) => plain(value).into(),
        }
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

impl Path {
    /// Reads a simple JSONPath; `None` when it is not one.
    pub fn parse(text: &str) -> Option<Path> {
        let mut steps = Vec::new();
        let mut rest = text.trim().trim_start_matches('$');
        while !rest.is_empty() {
            rest = match rest.strip_prefix('[') {
                Some(bracket) => {
                    let end = closing(bracket)?;
                    steps.push(bracketed(&bracket[..end])?);
                    &bracket[end + 1..]
                }
                None => {
                    let (name, after) = field_name(rest.strip_prefix('.').unwrap_or(rest));
                    match name.as_str() {
                        "" => {}
                        "*" => steps.push(Step::Every),
                        name => steps.push(Step::Field(name.into())),
                    }
                    after
                }
            };
        }
        Some(Path(steps))
    }

    pub fn find<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        self.0.iter().fold(vec![value], |found, step| {
            found.into_iter().flat_map(|value| step.take(value)).collect()
        })
    }
}

/// A name up to the next point or bracket; a backslash takes either into the name.
fn field_name(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            '\\' if !escaped => escaped = true,
            '.' | '[' if !escaped => return (name, &text[at..]),
            c => {
                escaped = false;
                name.push(c);
            }
        }
    }
    (name, "")
}

/// Where the bracket closes, past quoted text.
fn closing(text: &str) -> Option<usize> {
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (None, ']') => return Some(at),
            (None, '"' | '\'') => quote = Some(c),
            (Some(q), c) if q == c => quote = None,
            _ => {}
        }
    }
    None
}

fn bracketed(text: &str) -> Option<Step> {
    let unquoted = |text: &str| text.trim().trim_matches(['"', '\'']).to_owned();
    if text == "*" {
        return Some(Step::Every);
    }
    if let Some(filter) = text.strip_prefix("?(").and_then(|t| t.strip_suffix(')')) {
        let (path, value) = filter.split_once("==")?;
        let path = Path::parse(path.trim().strip_prefix('@')?)?;
        let value = value.trim();
        let value = serde_json::from_str(value).unwrap_or_else(|_| unquoted(value).into());
        return Some(Step::Where(path, value));
    }
    match text.parse() {
        Ok(index) => Some(Step::Index(index)),
        Err(_) => Some(Step::Field(unquoted(text).into())),
    }
}

impl Step {
    fn take<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        match self {
            Step::Field(name) => value.get(&**name).into_iter().collect(),
            Step::Index(at) => {
                let list = value.as_array().map_or(&[][..], Vec::as_slice);
                let at = if *at < 0 { at + list.len() as i64 } else { *at };
                usize::try_from(at).ok().and_then(|at| list.get(at)).into_iter().collect()
            }
            Step::Every => match value {
                Value::Array(items) => items.iter().collect(),
                Value::Object(map) => map.values().collect(),
                _ => Vec::new(),
            },
            Step::Where(path, wanted) => {
                let items = value.as_array().into_iter().flatten();
                items.filter(|item| path.find(item).contains(&wanted)).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Path;

    #[test]
    fn paths_find_what_columns_show() {
        let object = json!({
            "metadata": {"labels": {"a.b/c": "x"}},
            "spec": {"list": [{"n": 1}, {"n": 2}]},
            "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Other"}]},
        });
        for (path, want) in [
            (".spec.list[1].n", vec![json!(2)]),
            (".spec.list[*].n", vec![json!(1), json!(2)]),
            (".status.conditions[?(@.type==\"Ready\")].status", vec![json!("True")]),
            (".status.conditions[?(@.type=='Ready')].status", vec![json!("True")]),
            (".metadata.labels.a\\.b/c", vec![json!("x")]),
            (".metadata.labels['a.b/c']", vec![json!("x")]),
            (".nothing.here", vec![]),
        ] {
            let found = Path::parse(path).expect("a path");
            assert_eq!(found.find(&object), want.iter().collect::<Vec<_>>(), "{path}");
        }
    }
}
