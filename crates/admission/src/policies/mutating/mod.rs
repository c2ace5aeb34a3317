//! The plugin MutatingAdmissionPolicy (apiserver `plugin/policy/mutating`).

mod dispatch;
mod patch;

use std::sync::Arc;

use cel::Type;
use serde_json::Value;

use super::matched::is_exempt;
use super::policy::Evaluator;
use super::snapshot::Policies;
use crate::attributes::{Attributes, Operation};
use crate::expressions::{Compiler, Expression, Given};
use crate::plugin::{Decision, Plugin};

const PLUGIN: &str = "MutatingAdmissionPolicy";

/// How an expression says what to change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PatchType {
    ApplyConfiguration,
    JsonPatch,
}

impl PatchType {
    /// The type of the expression's value.
    pub(crate) fn value_type(self) -> Type {
        match self {
            PatchType::ApplyConfiguration => Type::object("Object"),
            PatchType::JsonPatch => Type::list(Type::object("JSONPatch")),
        }
    }
}

/// One of `mutations`.
#[derive(Debug)]
pub(crate) struct Mutation {
    pub(crate) patch: PatchType,
    pub(crate) expression: Expression,
}

/// What a mutating policy does.
#[derive(Debug)]
pub(crate) struct Mutations {
    pub(crate) mutations: Vec<Mutation>,
    /// Run again when something else changed the object afterwards.
    pub(crate) reinvoked: bool,
}

impl Evaluator for Mutations {
    fn compile(spec: &Value, compiler: &Compiler) -> Mutations {
        let mutation = |item: &Value| {
            let (patch, source) = match item["patchType"].as_str()? {
                "ApplyConfiguration" => (PatchType::ApplyConfiguration, "applyConfiguration"),
                "JSONPatch" => (PatchType::JsonPatch, "jsonPatch"),
                _ => return None,
            };
            let text = item[source]["expression"].as_str().unwrap_or("");
            let expression = compiler.expression(text, Given::PATCHES, &[patch.value_type()]);
            Some(Mutation { patch, expression })
        };
        Mutations {
            mutations: validation::items(spec, "mutations").filter_map(mutation).collect(),
            reinvoked: spec["reinvocationPolicy"] == "IfNeeded",
        }
    }
}

/// The plugin, over the policies of its server.
#[derive(Debug)]
pub struct Mutating(pub Arc<Policies>);

impl Plugin for Mutating {
    fn name(&self) -> &'static str {
        PLUGIN
    }

    fn reads_managers(&self) -> bool {
        true
    }

    fn handles(&self, request: &Attributes<'_>) -> bool {
        request.operation != Operation::Delete
            && !is_exempt(request)
            && !self.0.current().mutating.is_empty()
    }

    fn mutate<'a>(&'a self, request: &'a Attributes<'a>, object: &'a mut Value) -> Decision<'a> {
        Decision::Later(Box::pin(dispatch::dispatch(self.0.current(), request, object)))
    }
}
