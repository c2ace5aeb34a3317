//! RFC 6902, JSON Patch, with the rules and error sentences of the library that upstream uses
//! (evanphx/json-patch v4, negative indices allowed).

use serde_json::{Map, Value};

use crate::limits::{Budget, DEPTH_MAX, EXPANSION_MAX, TOO_DEEP, is_deeper, text_size};

/// Operations in one patch (upstream's limit against small bodies that explode).
pub const OPERATIONS_MAX: usize = 10_000;

/// List items that all operations of one patch may shift or look at, about a second's work: ten
/// thousand small operations on the head of a long list would take minutes.
const WORK_MAX: usize = 100_000_000;

/// Applies all operations or, on error, says why; `target` is then unspecified.
pub fn apply_json_patch(target: &mut Value, patch: &Value) -> Result<(), String> {
    apply(target, patch).map_err(|stop| stop.text)
}

/// The same, but false when a test of the patch does not hold.
pub fn apply_tested_json_patch(target: &mut Value, patch: &Value) -> Result<bool, String> {
    match apply(target, patch) {
        Ok(()) => Ok(true),
        Err(stop) if stop.is_failed_test => Ok(false),
        Err(stop) => Err(stop.text),
    }
}

/// Why a patch was not applied.
struct Stop {
    text: String,
    is_failed_test: bool,
}

impl From<String> for Stop {
    fn from(text: String) -> Stop {
        Stop { text, is_failed_test: false }
    }
}

fn apply(target: &mut Value, patch: &Value) -> Result<(), Stop> {
    let Value::Array(operations) = patch else {
        return Err("a JSON patch is a list of operations".to_owned().into());
    };
    if operations.len() > OPERATIONS_MAX {
        return Err(format!(
            "The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {}",
            operations.len()
        )
        .into());
    }
    let mut patching =
        Patching { target, copies: Budget::new(EXPANSION_MAX), work: Budget::new(WORK_MAX) };
    operations.iter().try_for_each(|operation| patching.apply(operation))
}

/// A patch on its way.
struct Patching<'a> {
    target: &'a mut Value,
    /// Bytes that copies may still add.
    copies: Budget,
    work: Budget,
}

impl Patching<'_> {
    fn apply(&mut self, operation: &Value) -> Result<(), Stop> {
        if operation["op"] == "test" {
            let path = operation["path"].as_str();
            let missing = || "test operation failed to decode path: missing value".to_owned();
            return test(self.target, path.ok_or_else(missing)?, operation.get("value"));
        }
        Ok(self.change(operation)?)
    }

    fn change(&mut self, operation: &Value) -> Result<(), String> {
        let op = operation["op"].as_str().unwrap_or("unknown");
        let text = |key: &str| {
            let missing = || format!("{op} operation failed to decode {key}: missing value");
            operation[key].as_str().ok_or_else(missing)
        };
        let value = || operation.get("value").cloned().unwrap_or(Value::Null);
        match op {
            "add" => self.add(op, text("path")?, value()),
            "remove" => self.remove(op, text("path")?).map(drop),
            "replace" => self.replace(text("path")?, value()),
            "copy" => {
                let copied = self.copied(text("from")?)?;
                self.add(op, text("path")?, copied)
            }
            "move" => {
                let moved = self.remove(op, text("from")?)?;
                self.work.take(text_size(&moved)).map_err(|_| too_much_work())?;
                self.add(op, text("path")?, moved)
            }
            other => Err(format!("Unexpected kind: {other}")),
        }
    }

    /// The library finds null where a map lacks the key.
    fn copied(&mut self, from: &str) -> Result<Value, String> {
        let (container, key) = find(self.target, from).ok_or_else(|| missing("copy", from))?;
        let source = get(container, &key)?;
        let size = source.map_or(0, text_size);
        self.copies.take(size).map_err(|_| {
            let grown = EXPANSION_MAX - self.copies.left() + size;
            format!(
                "Unable to complete the copy, the accumulated size increase of copy is {grown}, exceeding the limit {EXPANSION_MAX}"
            )
        })?;
        Ok(source.cloned().unwrap_or(Value::Null))
    }

    fn add(&mut self, op: &str, path: &str, value: Value) -> Result<(), String> {
        refuse_deep(path, &value)?;
        let (container, key) = find_mut(self.target, path).ok_or_else(|| missing(op, path))?;
        match container {
            Container::Map(map) => drop(map.insert(key, value)),
            Container::List(list) => {
                // An index counts from the end of the longer list: -1 appends.
                let at = if key == "-" { list.len() } else { index(&key, list.len() + 1)? };
                self.work.take(list.len() - at).map_err(|_| too_much_work())?;
                list.insert(at, value);
            }
        }
        Ok(())
    }

    /// A map need not have the key that is replaced.
    fn replace(&mut self, path: &str, value: Value) -> Result<(), String> {
        refuse_deep(path, &value)?;
        if path.is_empty() {
            if !value.is_object() && !value.is_array() {
                return Err("replace operation value must be object or array".into());
            }
            *self.target = value;
            return Ok(());
        }
        let absent = || missing("replace", path);
        match find_mut(self.target, path).ok_or_else(absent)? {
            (Container::Map(map), key) => drop(map.insert(key, value)),
            (Container::List(list), key) => {
                let at = index(&key, list.len())?;
                list[at] = value;
            }
        }
        Ok(())
    }

    fn remove(&mut self, op: &str, path: &str) -> Result<Value, String> {
        match find_mut(self.target, path).ok_or_else(|| missing(op, path))? {
            (Container::Map(map), key) => map.remove(&key).ok_or_else(|| {
                format!("error in {op} for path: '{path}': Unable to remove nonexistent key: {key}: missing value")
            }),
            (Container::List(list), key) => {
                let at = index(&key, list.len())?;
                self.work.take(list.len() - at).map_err(|_| too_much_work())?;
                Ok(list.remove(at))
            }
        }
    }
}

enum Container<'a> {
    Map(&'a mut Map<String, Value>),
    List(&'a mut Vec<Value>),
}

/// The map or list that a path ends in, and the key or index there. What stands before the first
/// slash is ignored, as upstream's library does; a path without one names nothing.
fn find<'v>(target: &'v Value, path: &str) -> Option<(&'v Value, String)> {
    let (parents, last) = steps(path)?;
    let step = |value: &'v Value, key: String| get(value, &key).ok().flatten();
    let container = parents.split('/').skip(1).map(unescape).try_fold(target, step)?;
    (container.is_object() || container.is_array()).then(|| (container, unescape(last)))
}

fn find_mut<'v>(target: &'v mut Value, path: &str) -> Option<(Container<'v>, String)> {
    let (parents, last) = steps(path)?;
    let mut container = target;
    for key in parents.split('/').skip(1).map(unescape) {
        container = match container {
            Value::Object(map) => map.get_mut(&key)?,
            Value::Array(list) => {
                let at = index(&key, list.len()).ok()?;
                &mut list[at]
            }
            _ => return None,
        };
    }
    let container = match container {
        Value::Object(map) => Container::Map(map),
        Value::Array(list) => Container::List(list),
        _ => return None,
    };
    Some((container, unescape(last)))
}

fn steps(path: &str) -> Option<(&str, &str)> {
    path.rsplit_once('/')
}

/// The value at a key, none when a map lacks it; an index must exist.
fn get<'v>(container: &'v Value, key: &str) -> Result<Option<&'v Value>, String> {
    match container {
        Value::Array(list) => Ok(Some(&list[index(key, list.len())?])),
        other => Ok(other.get(key)),
    }
}

/// A position in a list of this length; negative ones count from its end.
fn index(key: &str, length: usize) -> Result<usize, String> {
    let at: i64 =
        key.parse().map_err(|_| format!("strconv.Atoi: parsing {key:?}: invalid syntax"))?;
    let from_start = if at < 0 {
        length.checked_sub(at.unsigned_abs() as usize)
    } else {
        usize::try_from(at).ok()
    };
    let found = from_start.filter(|at| *at < length);
    found.ok_or_else(|| format!("Unable to access invalid index: {at}: invalid index"))
}

fn too_much_work() -> String {
    "the patch moves too many values".into()
}

fn missing(op: &str, path: &str) -> String {
    format!("{op} operation does not apply: doc is missing path: {path}: missing value")
}

/// Refuses a value that would make the object deeper than a body may be.
fn refuse_deep(path: &str, value: &Value) -> Result<(), String> {
    let levels = path.bytes().filter(|byte| *byte == b'/').count();
    match DEPTH_MAX.checked_sub(levels) {
        Some(allowed) if !is_deeper(value, allowed) => Ok(()),
        _ => Err(TOO_DEEP.into()),
    }
}

fn unescape(token: &str) -> String {
    token.replace("~1", "/").replace("~0", "~")
}

/// Null and nothing are the same.
fn test(target: &Value, path: &str, expected: Option<&Value>) -> Result<(), Stop> {
    let found = if path.is_empty() {
        Some(target)
    } else {
        let (container, key) = find(target, path).ok_or_else(|| missing("test", path))?;
        get(container, &key)?
    };
    match found.unwrap_or(&Value::Null) == expected.unwrap_or(&Value::Null) {
        true => Ok(()),
        false => {
            let text = format!("testing value {path} failed: test failed");
            Err(Stop { text, is_failed_test: true })
        }
    }
}
