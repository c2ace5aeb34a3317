//! Nodes of planned parts: paths grow, constants fold, functions and prices are looked up.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{CallNode, Conditional, Node, Operation, Path, PathStep, Root, StepKey};
use crate::ast::Literal;
use crate::error::Error;
use crate::library;
use crate::meter;
use crate::value::{Entries, Key, List, Map, Value};

pub(super) fn pair(args: Vec<Node>) -> Result<Box<[Node; 2]>, Vec<Node>> {
    <[Node; 2]>::try_from(args).map(Box::new)
}

pub(super) fn into_path(node: Node) -> Path {
    let root = match node {
        Node::Path(path) => return *path,
        Node::Conditional(conditional) => Root::Conditional(*conditional),
        other => Root::Value(other),
    };
    Path { root, steps: Vec::new(), test_only: false }
}

pub(super) fn index([operand, index]: [Node; 2], optional: bool) -> Node {
    let mut path = into_path(operand);
    let key = match index {
        Node::Const(value) => StepKey::Const(value),
        node @ (Node::Path(_) | Node::Conditional(_)) => StepKey::Path(into_path(node)),
        other => StepKey::Value(other),
    };
    path.steps.push(PathStep { key, optional });
    Node::Path(Box::new(path))
}

pub(super) fn conditional(args: Vec<Node>) -> Result<Node, Error> {
    let parts = <[Node; 3]>::try_from(args).map_err(|_| Error::no_overload())?;
    let [condition, then, otherwise] = parts;
    Ok(Node::Conditional(Box::new(Conditional { condition, then, otherwise })))
}

/// A constant list of simple values is asked at once.
pub(super) fn member(
    [value, list]: [Node; 2],
    name: &str,
    overload: Option<&str>,
) -> Result<Node, Error> {
    if let Node::Const(Value::List(List::Made(items))) = &list {
        let simple = |item: &Value<'_>| {
            matches!(
                item,
                Value::Bool(_)
                    | Value::Double(_)
                    | Value::Int(_)
                    | Value::String(_)
                    | Value::Uint(_)
            )
        };
        if items.is_empty() {
            return Ok(Node::Const(Value::Bool(false)));
        }
        if items.iter().all(simple) {
            return Ok(Node::Member(Box::new(value), items.to_vec()));
        }
    }
    operation(name, overload, vec![value, list])
}

pub(super) fn operation(
    name: &str,
    overload: Option<&str>,
    args: Vec<Node>,
) -> Result<Node, Error> {
    let price = meter::price(name, overload);
    let operation = match (name, &args[..]) {
        ("_+_", _) => Operation::Add,
        ("cel.@mapInsert", _) => Operation::MapInsert,
        ("matches" | "find" | "findAll", [_, Node::Const(Value::String(pattern)), ..]) => {
            Operation::Regex(library::regex(pattern)?)
        }
        _ => {
            let function = overload.and_then(library::sum).or_else(|| library::function(name));
            let missing = || Error::new(format!("no such overload: {name}"));
            Operation::Function(function.ok_or_else(missing)?)
        }
    };
    let call = CallNode { name: name.into(), operation, args, price };
    match &call.args[..] {
        [Node::Const(value)] if converts(name) => {
            let Operation::Function(function) = call.operation else {
                return Err(Error::no_overload());
            };
            library::invoke(function, name, std::slice::from_ref(value)).map(Node::Const)
        }
        _ => Ok(Node::Call(Box::new(call))),
    }
}

/// Conversions of constants are constants.
fn converts(name: &str) -> bool {
    matches!(
        name,
        "bool"
            | "bytes"
            | "double"
            | "duration"
            | "dyn"
            | "int"
            | "string"
            | "timestamp"
            | "type"
            | "uint"
    )
}

pub(super) fn constant(literal: &Literal) -> Value<'static> {
    match literal {
        Literal::Null => Value::Null,
        Literal::Bool(b) => Value::Bool(*b),
        Literal::Int(n) => Value::Int(*n),
        Literal::Uint(n) => Value::Uint(*n),
        Literal::Double(n) => Value::Double(*n),
        Literal::String(text) => Value::text(&**text),
        Literal::Bytes(bytes) => Value::Bytes(bytes.to_vec().into()),
    }
}

pub(super) fn list(parts: Vec<(Node, bool)>) -> Node {
    let constants = parts.iter().map(|(node, optional)| match node {
        Node::Const(value) if !optional => Some(value.clone()),
        _ => None,
    });
    match constants.collect::<Option<Vec<_>>>() {
        Some(items) => Node::Const(Value::list(items)),
        None => Node::List(parts),
    }
}

pub(super) fn map(parts: Vec<(Node, Node, bool)>) -> Node {
    let mut entries: Entries<'static> = BTreeMap::new();
    for (key, value, optional) in &parts {
        match (key, value) {
            (Node::Const(key), Node::Const(value)) if !optional => match Key::of(key) {
                Some(known) => entries.insert(known, (key.clone(), value.clone())),
                None => return Node::Map(parts),
            },
            _ => return Node::Map(parts),
        };
    }
    Node::Const(Value::Map(Map::Made(Arc::new(entries))))
}
