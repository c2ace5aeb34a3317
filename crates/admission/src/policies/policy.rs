//! What both kinds of policies have in common.

use cel::Variable;
use serde_json::Value;

use super::params::ParamKind;
use crate::expressions::{Compiler, FailurePolicy, MatchConditions};
use crate::matching::Constraints;

/// A state of an object: its uid and revision.
pub(crate) type State = (Box<str>, u64);

/// What a kind of policy adds to the common part.
pub(crate) trait Evaluator: Sized {
    fn compile(spec: &Value, compiler: &Compiler) -> Self;
}

/// A compiled policy.
#[derive(Debug)]
pub(crate) struct Policy<E> {
    pub(crate) state: State,
    pub(crate) name: Box<str>,
    pub(crate) failure: FailurePolicy,
    pub(crate) constraints: Constraints,
    pub(crate) param_kind: Option<ParamKind>,
    pub(crate) conditions: MatchConditions,
    pub(crate) variables: Vec<Variable>,
    pub(crate) evaluator: E,
}

impl<E: Evaluator> Policy<E> {
    pub(crate) fn compile(object: &Value, state: State) -> Policy<E> {
        let spec = &object["spec"];
        let failure = FailurePolicy::of(&spec["failurePolicy"]);
        let compiler = compiler(spec);
        Policy {
            state,
            name: object["metadata"]["name"].as_str().unwrap_or("").into(),
            failure,
            constraints: Constraints::of_policy(&spec["matchConstraints"]),
            param_kind: ParamKind::read(&spec["paramKind"]),
            conditions: MatchConditions::compile(&spec["matchConditions"], failure, &compiler),
            evaluator: E::compile(spec, &compiler),
            variables: compiler.into_variables(),
        }
    }
}

/// A compiler that knows the policy's variables.
pub(crate) fn compiler(spec: &Value) -> Compiler {
    let mut compiler = Compiler::of_policy(spec["paramKind"].is_object());
    variables(spec, &mut compiler);
    compiler
}

/// Adds the policy's variables to a compiler.
pub(crate) fn variables(spec: &Value, compiler: &mut Compiler) {
    for variable in validation::items(spec, "variables") {
        let text = |key: &str| variable[key].as_str().unwrap_or("");
        compiler.variable(text("name"), text("expression"));
    }
}
