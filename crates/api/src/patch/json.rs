//! RFC 6902, JSON Patch, with the error sentences of the library that upstream uses.

use serde_json::Value;

use crate::limits::{Budget, DEPTH_MAX, EXPANSION_MAX, TOO_DEEP, is_deeper, text_size};

/// Operations in one patch (upstream's limit against small bodies that explode).
const OPERATIONS_MAX: usize = 10_000;

/// List items that all operations of one patch may shift or look at, about a second's work: ten
/// thousand small operations on the head of a long list would take minutes.
const WORK_MAX: usize = 100_000_000;

/// Applies all operations or, on error, says why; `target` is then unspecified.
pub fn apply_json_patch(target: &mut Value, patch: &Value) -> Result<(), String> {
    let Value::Array(operations) = patch else {
        return Err("a JSON patch is a list of operations".into());
    };
    if operations.len() > OPERATIONS_MAX {
        return Err(format!(
            "The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {}",
            operations.len()
        ));
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
    fn apply(&mut self, operation: &Value) -> Result<(), String> {
        let text = |key: &str| operation[key].as_str();
        let op = text("op").unwrap_or_default();
        let path = text("path").ok_or_else(|| format!("Unexpected kind: {op}"))?;
        let value = || operation.get("value").cloned().unwrap_or(Value::Null);
        let from = || {
            text("from").ok_or_else(|| format!("error in {op} for path: '{path}': missing from"))
        };
        match op {
            "add" => self.add(path, value()),
            "remove" => self.remove(path).map(drop),
            "replace" => self.replace(path, value()),
            "test" => test(self.target, path, operation.get("value").unwrap_or(&Value::Null)),
            "copy" => {
                let copied = self.copied(from()?)?;
                self.add(path, copied)
            }
            "move" => {
                let moved = self.remove(from()?)?;
                self.work.take(text_size(&moved)).map_err(|_| too_much_work())?;
                self.add(path, moved)
            }
            other => Err(format!("Unexpected kind: {other}")),
        }
    }

    fn copied(&mut self, from: &str) -> Result<Value, String> {
        let source = self.target.pointer(from).ok_or_else(|| missing("copy", from))?;
        let size = text_size(source);
        self.copies.take(size).map_err(|_| {
            let grown = EXPANSION_MAX - self.copies.left() + size;
            format!(
                "Unable to complete the copy, the accumulated size increase of copy is {grown}, exceeding the limit {EXPANSION_MAX}"
            )
        })?;
        Ok(source.clone())
    }

    fn add(&mut self, path: &str, value: Value) -> Result<(), String> {
        refuse_deep(path, &value)?;
        let Some((parent, last)) = split(path) else {
            if !path.is_empty() {
                return Err(missing("add", path));
            }
            *self.target = value;
            return Ok(());
        };
        match self.target.pointer_mut(parent) {
            Some(Value::Object(map)) => {
                map.insert(last, value);
                Ok(())
            }
            Some(Value::Array(list)) => {
                let at = if last == "-" { list.len() } else { index(&last, path)? };
                let shifted = list.len().checked_sub(at).ok_or_else(|| missing("add", path))?;
                self.work.take(shifted).map_err(|_| too_much_work())?;
                list.insert(at, value);
                Ok(())
            }
            _ => Err(missing("add", path)),
        }
    }

    fn replace(&mut self, path: &str, value: Value) -> Result<(), String> {
        refuse_deep(path, &value)?;
        let slot = self.target.pointer_mut(path).ok_or_else(|| missing("replace", path))?;
        *slot = value;
        Ok(())
    }

    fn remove(&mut self, path: &str) -> Result<Value, String> {
        let absent = || missing("remove", path);
        let (parent, last) = split(path).ok_or_else(absent)?;
        match self.target.pointer_mut(parent) {
            Some(Value::Object(map)) => map.remove(&last).ok_or_else(absent),
            Some(Value::Array(list)) => {
                let at = index(&last, path)?;
                let shifted =
                    list.len().checked_sub(at).filter(|left| *left > 0).ok_or_else(absent)?;
                self.work.take(shifted).map_err(|_| too_much_work())?;
                Ok(list.remove(at))
            }
            _ => Err(absent()),
        }
    }
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

fn split(path: &str) -> Option<(&str, String)> {
    path.rsplit_once('/').map(|(parent, last)| (parent, unescape(last)))
}

fn test(target: &Value, path: &str, expected: &Value) -> Result<(), String> {
    let found = target.pointer(path).unwrap_or(&Value::Null);
    if found == expected {
        Ok(())
    } else {
        Err(format!("testing value {path} failed: test failed"))
    }
}

fn index(token: &str, path: &str) -> Result<usize, String> {
    token.parse().map_err(|_| format!("strconv.Atoi: parsing {token:?}: invalid syntax at {path}"))
}
