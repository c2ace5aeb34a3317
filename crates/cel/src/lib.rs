//! The Common Expression Language in the environment that Kubernetes v1.36 gives it: parser, type
//! checker, estimate of costs, interpreter that counts them, and Kubernetes' libraries.
//!
//! An expression is compiled once ([`Env::compile`]) and run against data where it lies
//! ([`Program::run`]). Nothing here knows requests, stored objects, or whose rules these are.

mod ast;
mod checker;
mod declared;
mod equal;
mod error;
mod estimate;
mod eval;
mod functions;
mod issues;
mod json;
mod lexer;
mod library;
mod literal;
mod macros;
mod meter;
mod names;
mod native;
mod parser;
mod plan;
mod time;
mod types;
mod unify;
mod validators;
mod value;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use serde_json::Value as Json;

pub use declared::{Decl, Field, ListKind, Objects, Scalar, Shape};
pub use error::{Error, Failure};
pub use estimate::Range;
pub use eval::Binding;
pub use eval::composition::{Composition, Variable};
pub use issues::Issues;
pub use library::authorization::{Authorize, Decision, Question, ResourceCheck, Target};
pub use names::escaped;
pub use parser::is_reserved;
pub use types::Type;
pub use value::{Key, List, Map, Struct, Text, VARIABLES_TYPE, Value};

/// The most one run of an expression may cost (apiserver `celconfig.PerCallLimit`).
pub const PER_CALL_LIMIT: u64 = 1_000_000;
/// The most all rules of one object may cost together (`celconfig.RuntimeCELCostBudget`).
pub const RUNTIME_BUDGET: u64 = 10_000_000;
/// The largest request, in bytes (`celconfig.MaxRequestSizeBytes`): it bounds what is not bounded
/// otherwise.
pub const REQUEST_MAX: u64 = 3 * 1024 * 1024;

/// What an expression may name: variables, and the objects their types are made of.
#[derive(Debug, Clone)]
pub struct Env {
    objects: Arc<Objects>,
    variables: Vec<(Box<str>, Type)>,
    /// Expressions may make `Object{…}` and `JSONPatch{…}`.
    patches: bool,
    /// Expressions may name values by `cel.bind`.
    bindings: bool,
}

/// An expression whose types are right.
#[derive(Debug)]
pub struct Compiled {
    checked: checker::Checked,
    variables: Vec<Box<str>>,
}

/// An expression ready to run.
pub struct Program {
    plan: plan::Plan,
    variables: Vec<Box<str>>,
}

/// What came out of a run, and what it cost.
#[derive(Debug)]
pub struct Outcome<'v> {
    pub value: Result<Value<'v>, Failure>,
    pub cost: u64,
}

impl Env {
    pub fn new(objects: Arc<Objects>) -> Env {
        Env { objects, variables: Vec::new(), patches: false, bindings: false }
    }

    /// One variable more. Runs bind variables in this order.
    #[must_use]
    pub fn with(mut self, name: &str, ty: Type) -> Env {
        self.variables.push((name.into(), ty));
        self
    }

    /// With messages that say how to change an object.
    #[must_use]
    pub fn with_patches(self) -> Env {
        Env { patches: true, ..self }
    }

    /// With `cel.bind`, which Kubernetes' base environment does not have.
    #[must_use]
    pub fn with_bindings(self) -> Env {
        Env { bindings: true, ..self }
    }

    /// Reads and checks an expression. The issues print as upstream's clients see them.
    pub fn compile(&self, text: &str) -> Result<Compiled, Issues> {
        let tree = parser::parse(text, self.bindings)?;
        let mut issues = Issues::of(text);
        let checked = checker::check(tree, self, &mut issues);
        if issues.is_empty() {
            validators::validate(&checked, &mut issues);
        }
        match issues.is_empty() {
            true => {
                let variables = self.variables.iter().map(|(name, _)| name.clone()).collect();
                Ok(Compiled { checked, variables })
            }
            false => Err(issues),
        }
    }
}

impl Compiled {
    /// The type of the expression's value.
    pub fn output(&self) -> &Type {
        self.checked.type_of(&self.checked.tree.root)
    }

    /// Whether the expression looks at a variable of the environment.
    pub fn uses(&self, variable: &str) -> bool {
        let mut found = false;
        self.checked.tree.root.walk(&mut |expr| {
            found |= matches!(&expr.kind, ast::Kind::Ident(name) if &**name == variable);
        });
        found
    }

    /// Whether the expression selects a field of a variable: `variable.field`, `variable.?field`.
    pub fn selects(&self, variable: &str, field: &str) -> bool {
        let is =
            |expr: &ast::Expr| matches!(&expr.kind, ast::Kind::Ident(name) if &**name == variable);
        let named = |expr: &ast::Expr| matches!(&expr.kind, ast::Kind::Literal(ast::Literal::String(text)) if &**text == field);
        let mut found = false;
        self.checked.tree.root.walk(&mut |expr| {
            found |= match &expr.kind {
                ast::Kind::Select(select) => &*select.field == field && is(&select.operand),
                ast::Kind::Call(call) => match call.args.as_slice() {
                    [operand, name] => &*call.function == "_?._" && is(operand) && named(name),
                    _ => false,
                },
                _ => false,
            };
        });
        found
    }

    /// Bounds of what a run can cost when the variables hold data of this declaration.
    pub fn estimate(&self, data: Option<&Decl>) -> Range {
        estimate::estimate(&self.checked, data)
    }

    /// Makes it ready. An error is one that every run would have.
    pub fn program(&self) -> Result<Program, Error> {
        let plan = plan::plan(&self.checked, &self.variables)?;
        Ok(Program { plan, variables: self.variables.clone() })
    }
}

impl Program {
    /// Runs with the variables of the environment, in its order, up to a cost.
    pub fn run<'v>(&'v self, variables: Vec<Binding<'v>>, limit: u64) -> Outcome<'v> {
        let (value, cost) = eval::run(&self.plan, &self.variables, variables, limit, None);
        Outcome { value, cost }
    }

    /// Runs with the bindings of a composition and its variables.
    pub fn run_composed<'v>(
        &'v self,
        composition: &mut Composition<'v>,
        limit: u64,
    ) -> Outcome<'v> {
        let bindings = composition.bindings().to_vec();
        let (value, cost) =
            eval::run(&self.plan, &self.variables, bindings, limit, Some(composition));
        Outcome { value, cost }
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Program({} slots)", self.plan.slots)
    }
}

impl<'v> Value<'v> {
    /// Data as its declaration has it; not copied but for single values.
    pub fn of_json(json: &'v Json, decl: &'v Decl) -> Result<Value<'v>, Error> {
        json::read(json, decl)
    }

    /// JSON without a declaration, read by its own types.
    pub fn of_any(json: &'v Json) -> Value<'v> {
        json::read_any(json)
    }

    /// A value that may be missing.
    pub fn optional(value: Option<Value<'v>>) -> Value<'v> {
        Value::Optional(value.map(Arc::new))
    }

    /// The text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        self.as_str()
    }
}
