//! Rules as they are written, and what becomes of them: programs, and what they can cost
//! (apiextensions `pkg/apiserver/schema/cel/compilation.go`).

use std::sync::Arc;

use cel::{Compiled, Decl, Env, Objects, Program, REQUEST_MAX, Type};
use serde_json::Value;

/// One entry of `x-kubernetes-validations`.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) rule: Box<str>,
    pub(crate) message: Box<str>,
    pub(crate) message_expression: Box<str>,
    pub(crate) reason: Box<str>,
    pub(crate) field_path: Box<str>,
    /// … and is run without a former value too, as an empty optional.
    pub(crate) optional_old: bool,
}

/// A rule ready to run.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) program: Program,
    /// A transition rule: it asks about the former value.
    pub(crate) uses_old: bool,
    /// The most it can cost.
    pub(crate) cost: u64,
    /// Its message's expression, or why there is none.
    pub(crate) message: Option<Result<Message, String>>,
}

#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) program: Program,
    pub(crate) cost: u64,
}

impl Written {
    pub(crate) fn read(rule: &Value) -> Written {
        let text = |key: &str| -> Box<str> { rule[key].as_str().unwrap_or("").into() };
        Written {
            rule: text("rule"),
            message: text("message"),
            message_expression: text("messageExpression"),
            reason: text("reason"),
            field_path: text("fieldPath"),
            optional_old: rule["optionalOldSelf"] == true,
        }
    }

    /// What faults call the rule.
    pub(crate) fn name(&self) -> &str {
        if self.message.is_empty() { self.rule.trim() } else { self.message.trim() }
    }

    /// `None` if there is no rule; an error in upstream's words.
    pub(crate) fn compile(&self, scope: &Scope) -> Option<Result<Ready, String>> {
        (!self.rule.trim().is_empty()).then(|| self.ready(scope))
    }

    fn ready(&self, scope: &Scope) -> Result<Ready, String> {
        let env = if self.optional_old { &scope.optional } else { &scope.plain };
        let compiled =
            env.compile(&self.rule).map_err(|issues| format!("compilation failed: {issues}"))?;
        if *compiled.output() != Type::Bool {
            return Err("cel expression must evaluate to a bool".to_owned());
        }
        let program =
            compiled.program().map_err(|e| format!("program instantiation failed: {e}"))?;
        let message = (!self.message_expression.is_empty()).then(|| self.message(env, scope));
        let cost = scope.cost(&compiled);
        Ok(Ready { program, uses_old: compiled.uses("oldSelf"), cost, message })
    }

    fn message(&self, env: &Env, scope: &Scope) -> Result<Message, String> {
        let compiled = env
            .compile(&self.message_expression)
            .map_err(|issues| format!("messageExpression compilation failed: {issues}"))?;
        if *compiled.output() != Type::String {
            return Err("messageExpression must evaluate to a string".to_owned());
        }
        let program = compiled
            .program()
            .map_err(|e| format!("messageExpression instantiation failed: {e}"))?;
        Ok(Message { program, cost: scope.cost(&compiled) })
    }
}

/// What the rules of one place may name.
pub(crate) struct Scope {
    plain: Env,
    /// … with the former value an optional.
    optional: Env,
    decl: Arc<Decl>,
}

impl Scope {
    pub(crate) fn new(objects: &Arc<Objects>, decl: &Arc<Decl>) -> Scope {
        let this = Env::new(objects.clone()).with("self", decl.ty.clone());
        Scope {
            plain: this.clone().with("oldSelf", decl.ty.clone()),
            optional: this.with("oldSelf", Type::optional(decl.ty.clone())),
            decl: decl.clone(),
        }
    }

    fn cost(&self, compiled: &Compiled) -> u64 {
        compiled.estimate(Some(&self.decl)).max
    }

    /// How many values of this place fit into one request: a bound where no other is declared.
    pub(crate) fn most(&self) -> u64 {
        REQUEST_MAX / (self.decl.min_bytes + 1)
    }
}
