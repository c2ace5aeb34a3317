//! What Go calls fields and their types, for the sentences of its decoder.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::{Schema, Shape, TypeId};

/// `Type.field type|- [embedded]`, one a line.
const NAMES: &str = include_str!("../../schema/gotypes.txt");

/// A field's named type, and the embedded structs that it comes from.
#[derive(Debug, Default, Clone, Copy)]
struct Named {
    ty: Option<&'static str>,
    through: Option<&'static str>,
}

static FIELDS: LazyLock<HashMap<&'static str, Named>> = LazyLock::new(|| {
    let parse = |line: &'static str| {
        let mut words = line.split(' ');
        let field = words.next()?;
        let ty = words.next().filter(|ty| *ty != "-");
        Some((field, Named { ty, through: words.next() }))
    };
    NAMES.lines().filter(|line| !line.starts_with('#')).filter_map(parse).collect()
});

fn named(schema: &Schema, owner: TypeId, field: &str) -> Named {
    let key = format!("{}.{field}", schema.get(owner).name);
    FIELDS.get(&*key).copied().unwrap_or_default()
}

/// The type of a field's value, or of what lies `depth` lists or maps within it.
pub(super) fn type_of(
    schema: &Schema,
    owner: TypeId,
    field: &str,
    depth: usize,
) -> Option<&'static str> {
    let mut ty = named(schema, owner, field).ty?;
    for _ in 0..depth {
        ty = match ty.strip_prefix("[]") {
            Some(item) => item,
            None => ty.split_once(']')?.1,
        };
    }
    Some(ty)
}

/// The path of some fields below a type, with the structs that some of them are embedded through.
pub(super) fn path<'p>(
    schema: &Schema,
    root: Option<TypeId>,
    fields: impl Iterator<Item = &'p str>,
) -> String {
    let mut owner = root;
    let mut parts: Vec<&str> = Vec::new();
    for field in fields {
        parts.extend(owner.and_then(|id| named(schema, id, field).through));
        parts.push(field);
        owner = owner.and_then(|id| struct_of(&schema.get(id).field(field)?.shape));
    }
    parts.join(".")
}

fn struct_of(shape: &Shape) -> Option<TypeId> {
    match shape {
        Shape::Struct(id) => Some(*id),
        Shape::List(inner) | Shape::Map(inner) => struct_of(inner),
        _ => None,
    }
}
