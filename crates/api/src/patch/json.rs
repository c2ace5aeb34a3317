//! RFC 6902, JSON Patch, with the error sentences of the library the original uses.

use serde_json::Value;

/// Operations in one patch (the original's limit against small bodies that explode).
const OPERATIONS_MAX: usize = 10_000;

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
    operations.iter().try_for_each(|operation| apply_one(target, operation))
}

fn apply_one(target: &mut Value, operation: &Value) -> Result<(), String> {
    let text = |key: &str| operation[key].as_str().map(str::to_owned);
    let op = text("op").unwrap_or_default();
    let path = text("path").ok_or_else(|| format!("Unexpected kind: {op}"))?;
    let value = || operation.get("value").cloned().unwrap_or(Value::Null);
    let from =
        || text("from").ok_or_else(|| format!("error in {op} for path: '{path}': missing from"));
    match op.as_str() {
        "add" => add(target, &path, value()),
        "remove" => remove(target, &path).map(drop),
        "replace" => {
            get(target, &path).ok_or_else(|| missing("replace", &path))?;
            set(target, &path, value())
        }
        "test" => test(target, &path, &value()),
        "copy" => {
            let from = from()?;
            let copied = get(target, &from).cloned().ok_or_else(|| missing("copy", &from))?;
            add(target, &path, copied)
        }
        "move" => {
            let moved = remove(target, &from()?)?;
            add(target, &path, moved)
        }
        other => Err(format!("Unexpected kind: {other}")),
    }
}

fn missing(op: &str, path: &str) -> String {
    format!("{op} operation does not apply: doc is missing path: {path}: missing value")
}

fn unescape(token: &str) -> String {
    token.replace("~1", "/").replace("~0", "~")
}

fn split(path: &str) -> Option<(&str, String)> {
    path.rsplit_once('/').map(|(parent, last)| (parent, unescape(last)))
}

fn get<'a>(target: &'a Value, path: &str) -> Option<&'a Value> {
    target.pointer(path)
}

fn test(target: &Value, path: &str, expected: &Value) -> Result<(), String> {
    let found = get(target, path).unwrap_or(&Value::Null);
    if found == expected {
        Ok(())
    } else {
        Err(format!("testing value {path} failed: test failed"))
    }
}

fn add(target: &mut Value, path: &str, value: Value) -> Result<(), String> {
    let Some((parent, last)) = split(path) else {
        if !path.is_empty() {
            return Err(missing("add", path));
        }
        *target = value;
        return Ok(());
    };
    match target.pointer_mut(parent) {
        Some(Value::Object(map)) => {
            map.insert(last, value);
            Ok(())
        }
        Some(Value::Array(list)) => {
            let at = if last == "-" { list.len() } else { index(&last, path)? };
            if at > list.len() {
                return Err(format!(
                    "add operation does not apply: doc is missing path: {path}: missing value"
                ));
            }
            list.insert(at, value);
            Ok(())
        }
        _ => Err(missing("add", path)),
    }
}

fn set(target: &mut Value, path: &str, value: Value) -> Result<(), String> {
    let slot = target.pointer_mut(path).ok_or_else(|| missing("replace", path))?;
    *slot = value;
    Ok(())
}

fn remove(target: &mut Value, path: &str) -> Result<Value, String> {
    let absent =
        || format!("remove operation does not apply: doc is missing path: {path}: missing value");
    let (parent, last) = split(path).ok_or_else(absent)?;
    match target.pointer_mut(parent) {
        Some(Value::Object(map)) => map.remove(&last).ok_or_else(absent),
        Some(Value::Array(list)) => {
            let at = index(&last, path)?;
            if at >= list.len() { Err(absent()) } else { Ok(list.remove(at)) }
        }
        _ => Err(absent()),
    }
}

fn index(token: &str, path: &str) -> Result<usize, String> {
    token.parse().map_err(|_| format!("strconv.Atoi: parsing {token:?}: invalid syntax at {path}"))
}
