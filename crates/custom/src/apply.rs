//! A schema as field management reads it: the same structure in the form of the built-in types.

use api::schema::{Field, ListKind, Patch, Presence, Schema, Shape, Type, TypeId};

use crate::node::Node;

/// Types of one version, and the shape of its objects.
pub(crate) fn schema(root: &Node) -> (Schema, Shape) {
    let mut builder = Builder { schema: Schema::default() };
    let built_in = Schema::built_in();
    let meta = built_in.find("meta.v1.ObjectMeta").expect("objects have metadata");
    let meta = builder.schema.import(built_in, meta);
    if root.preserve {
        // Whatever is sent is a field: an object of free form, owned in parts.
        builder.schema.index();
        return (builder.schema, Shape::Map(Box::new(Shape::Any)));
    }
    let mut fields = builder.fields(root);
    fields.retain(|f| !matches!(&*f.name, "apiVersion" | "kind" | "metadata"));
    fields.push(field("apiVersion", Shape::String));
    fields.push(field("kind", Shape::String));
    fields.push(field("metadata", Shape::Struct(meta)));
    let root = builder.add(fields, false);
    builder.schema.index();
    (builder.schema, Shape::Struct(root))
}

struct Builder {
    schema: Schema,
}

fn field(name: &str, shape: Shape) -> Field {
    Field {
        name: name.into(),
        shape,
        tags: Box::default(),
        required: false,
        // What is there stays: there are no Go structs whose zero values would be left out.
        presence: Presence { pointer: true, ..Presence::default() },
        default: None,
        zero_default: false,
        values: Box::default(),
        list: ListKind::Atomic,
        atomic: false,
        patch: Patch::default(),
    }
}

impl Builder {
    fn add(&mut self, mut fields: Vec<Field>, atomic: bool) -> TypeId {
        fields.sort_by(|a, b| a.name.cmp(&b.name));
        self.schema.add(Type { name: Box::default(), fields, kind: None, atomic })
    }

    fn fields(&mut self, node: &Node) -> Vec<Field> {
        let mut fields = Vec::with_capacity(node.properties.len());
        for (name, below) in &node.properties {
            let shape = self.shape(below);
            let default = below.default.clone();
            let (list, atomic) = (below.list.clone(), below.atomic);
            fields.push(Field { list, atomic, default, ..field(name, shape) });
        }
        fields
    }

    fn shape(&mut self, node: &Node) -> Shape {
        // Free form is owned in part: a map of anything, which declared fields are a part of.
        if node.preserve && node.types != ["array"] {
            return Shape::Map(Box::new(Shape::Any));
        }
        match node.types.as_slice() {
            ["object"] if !node.properties.is_empty() || node.embedded => {
                let fields = self.fields(node);
                Shape::Struct(self.add(fields, node.atomic))
            }
            ["object"] => {
                let below = node.additional.as_deref().map(|below| self.shape(below));
                Shape::Map(Box::new(below.unwrap_or(Shape::Any)))
            }
            ["array"] => {
                let below = node.items.as_deref().map(|below| self.shape(below));
                Shape::List(Box::new(below.unwrap_or(Shape::Any)))
            }
            ["string"] => Shape::String,
            ["integer"] => Shape::Int64,
            ["number"] => Shape::Double,
            ["boolean"] => Shape::Bool,
            ["integer", "string"] => Shape::IntOrString,
            _ => Shape::Any,
        }
    }
}
