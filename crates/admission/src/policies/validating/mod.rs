//! The plugin ValidatingAdmissionPolicy (apiserver `plugin/policy/validating`).

mod dispatch;
mod evaluate;
mod report;

use std::sync::Arc;

use cel::Type;
use serde_json::Value;

use super::matched::is_exempt;
use super::policy::Evaluator;
use super::snapshot::Policies;
use crate::attributes::Attributes;
use crate::expressions::{Compiler, Expression, Given};
use crate::plugin::{Decision, Plugin};

/// One of `validations`.
#[derive(Debug)]
pub(crate) struct Validation {
    pub(crate) expression: Expression,
    pub(crate) message: Box<str>,
    pub(crate) message_expression: Option<Expression>,
    /// Empty: `Invalid`.
    pub(crate) reason: Box<str>,
}

/// One of `auditAnnotations`.
#[derive(Debug)]
pub(crate) struct AuditAnnotation {
    pub(crate) key: Box<str>,
    pub(crate) value: Expression,
}

/// What a validating policy evaluates.
#[derive(Debug)]
pub(crate) struct Validations {
    pub(crate) validations: Vec<Validation>,
    pub(crate) annotations: Vec<AuditAnnotation>,
}

impl Evaluator for Validations {
    fn compile(spec: &Value, compiler: &Compiler) -> Validations {
        let text = |item: &Value, key: &str| item[key].as_str().unwrap_or("").to_owned();
        let validation = |item: &Value| {
            let by = text(item, "messageExpression");
            let message = |by: String| compiler.expression(&by, Given::NOTHING, &[Type::String]);
            Validation {
                expression: compiler.expression(
                    &text(item, "expression"),
                    Given::AUTHORIZER,
                    &[Type::Bool],
                ),
                message: text(item, "message").into(),
                message_expression: (!by.is_empty()).then(|| message(by)),
                reason: text(item, "reason").into(),
            }
        };
        let annotation = |item: &Value| AuditAnnotation {
            key: text(item, "key").into(),
            value: compiler.expression(
                &text(item, "valueExpression"),
                Given::AUTHORIZER,
                &[Type::String, Type::Null],
            ),
        };
        Validations {
            validations: validation::items(spec, "validations").map(validation).collect(),
            annotations: validation::items(spec, "auditAnnotations").map(annotation).collect(),
        }
    }
}

/// The plugin, over the policies of its server.
#[derive(Debug)]
pub struct Validating(pub Arc<Policies>);

impl Plugin for Validating {
    fn name(&self) -> &'static str {
        "ValidatingAdmissionPolicy"
    }

    fn reads_managers(&self) -> bool {
        true
    }

    fn handles(&self, request: &Attributes<'_>) -> bool {
        !is_exempt(request) && !self.0.current().validating.is_empty()
    }

    fn validate<'a>(&'a self, request: &'a Attributes<'a>, object: &'a Value) -> Decision<'a> {
        Decision::Later(Box::pin(dispatch::dispatch(self.0.current(), request, object)))
    }
}
