//! One mutation: its expression evaluated, and what it says laid over the object (apiserver
//! `policy/mutating/patch`).

use api::Status;
use api::registry::Resource;
use cel::{List, Struct, Value as Cel, Variable};
use serde_json::{Map, Value};

use super::{Mutation, PatchType};
use crate::attributes::Attributes;
use crate::expressions::{Activation, Budget, Inputs};

/// Why an object is not changed.
pub(super) enum Refused {
    /// Subject to the failure policy.
    Denied(String),
    /// Ends the request.
    Status(Box<Status>),
}

impl Refused {
    pub(super) fn message(&self) -> &str {
        match self {
            Refused::Denied(why) => why,
            Refused::Status(status) => &status.message,
        }
    }
}

fn denied(why: impl ToString) -> Refused {
    Refused::Denied(why.to_string())
}

/// The object after the mutation, read again and with its defaults.
pub(super) fn patched<'v>(
    request: &Attributes<'_>,
    row: &Resource,
    mutation: &'v Mutation,
    variables: &'v [Variable],
    inputs: &Inputs<'v>,
) -> Result<Value, Refused> {
    let Some(object) = inputs.object else { return Ok(Value::Null) };
    if let Some(fault) = mutation.expression.fault() {
        return Err(denied(fault));
    }
    let mut activation = Activation::new(inputs, variables);
    let mut budget = Budget::POLICY;
    let evaluated = activation.evaluate(&mutation.expression, &mut budget).map_err(denied)?;
    let value = evaluated.map_err(Refused::Denied)?;
    let changed = match mutation.patch {
        PatchType::ApplyConfiguration => applied(request, row, object, &value)?,
        PatchType::JsonPatch => match json_patched(object, &value)? {
            Some(changed) => changed,
            None => return Ok(object.clone()),
        },
    };
    let strict = mutation.patch == PatchType::JsonPatch;
    request
        .versions
        .patched(row, changed, strict)
        .map_err(|status| Refused::Status(Box::new(status)))
}

/// The configuration laid over the object as server-side apply does it, without owners of fields.
fn applied(
    request: &Attributes<'_>,
    row: &Resource,
    object: &Value,
    value: &Cel<'_>,
) -> Result<Value, Refused> {
    let Cel::Struct(made) = value else {
        let ty = value.type_of().declared();
        return Err(denied(format!(
            "unsupported return type from ApplyConfiguration expression: {ty}"
        )));
    };
    check_names(made)?;
    let mut configuration = value.to_json().map_err(denied)?;
    if let Some(map) = configuration.as_object_mut() {
        for key in ["apiVersion", "kind"] {
            map.insert(key.into(), object[key].clone());
        }
    }
    request
        .versions
        .merge(row, object, &configuration)
        .map_err(|why| denied(format!("error applying patch: {why}")))
}

/// Messages are named after the fields they are the value of: `Object.spec` under `spec`.
fn check_names(root: &Struct<'_>) -> Result<(), Refused> {
    let mut faults = Vec::new();
    check_struct(root, "Object", &mut faults);
    match faults.is_empty() {
        true => Ok(()),
        false => Err(denied(format!("type mismatch: {}", faults.join("\n")))),
    }
}

fn check_struct(made: &Struct<'_>, expected: &str, faults: &mut Vec<String>) {
    if *made.name != *expected {
        faults.push(format!(
            "unexpected type name {:?}, expected {expected:?}, which matches field name path from root Object type",
            made.name
        ));
    }
    for (name, value) in &made.fields {
        check_value(value, &format!("{expected}.{name}"), faults);
    }
}

/// Lists and maps between messages have no names.
fn check_value(value: &Cel<'_>, expected: &str, faults: &mut Vec<String>) {
    match value {
        Cel::Struct(made) => check_struct(made, expected, faults),
        Cel::List(List::Made(items)) => {
            items.iter().for_each(|item| check_value(item, expected, faults));
        }
        Cel::Map(cel::Map::Made(entries)) => {
            entries.values().for_each(|(_, value)| check_value(value, expected, faults));
        }
        _ => {}
    }
}

/// The object after the patch; `None` if one of its tests fails, which leaves the object as it is.
fn json_patched(object: &Value, value: &Cel<'_>) -> Result<Option<Value>, Refused> {
    let Cel::List(List::Made(operations)) = value else {
        return Err(denied("type mismatch: JSONPatchType.expression should evaluate to array"));
    };
    let operations = operations.iter().map(operation).collect::<Result<Vec<_>, _>>()?;
    let mut changed = object.clone();
    match api::patch::apply_tested_json_patch(&mut changed, &Value::Array(operations)) {
        Ok(holds) => Ok(holds.then_some(changed)),
        Err(fault) => Err(denied(format!("JSON Patch: {fault}"))),
    }
}

/// One `JSONPatch{…}` as RFC 6902 writes it.
fn operation(value: &Cel<'_>) -> Result<Value, Refused> {
    let Cel::Struct(made) = value else {
        return Err(denied(
            "type mismatch: JSONPatchType.expression should evaluate to array of JSONPatch",
        ));
    };
    let mut operation = Map::new();
    for key in ["op", "path", "from"] {
        let text = made.fields.get(key).and_then(Cel::as_text).unwrap_or("");
        if !text.is_empty() || key != "from" {
            operation.insert(key.into(), text.into());
        }
    }
    if let Some(value) = made.fields.get("value") {
        if let Cel::Struct(made) = value {
            check_names(made)?;
        }
        let json = value.to_json().map_err(|fault| {
            denied(format!(
                "JSONPath valueExpression evaluated to a type that could not marshal to JSON: {fault}"
            ))
        })?;
        operation.insert("value".into(), json);
    }
    Ok(Value::Object(operation))
}
