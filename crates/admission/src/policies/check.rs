//! Expressions of configurations are compiled when they are written, so that faults are refused there (pkg
//! `apis/admissionregistration/validation`).

use cel::Type;
use validation::At;

use super::mutating::PatchType;
use crate::expressions::{Compiler, Expression, Given};

/// Faults of the expressions of a ValidatingAdmissionPolicy.
pub fn check_validating(policy: &At<'_>) {
    let spec = policy.get("spec");
    if spec.unchanged() {
        return;
    }
    let compiler = common(&spec);
    for validation in spec.get("validations").items() {
        let (expression, message) =
            (validation.get("expression"), validation.get("messageExpression"));
        compiled(&expression, |text| compiler.expression(text, Given::AUTHORIZER, &[Type::Bool]));
        compiled(&message, |text| compiler.expression(text, Given::NOTHING, &[Type::String]));
    }
    for annotation in spec.get("auditAnnotations").items() {
        let value = annotation.get("valueExpression");
        compiled(&value, |text| {
            compiler.expression(text.trim(), Given::AUTHORIZER, &[Type::String, Type::Null])
        });
    }
}

/// Faults of the expressions of a MutatingAdmissionPolicy.
pub fn check_mutating(policy: &At<'_>) {
    let spec = policy.get("spec");
    if spec.unchanged() {
        return;
    }
    let compiler = common(&spec);
    for mutation in spec.get("mutations").items() {
        let patches = [
            ("applyConfiguration", PatchType::ApplyConfiguration),
            ("jsonPatch", PatchType::JsonPatch),
        ];
        for (source, patch) in patches {
            compiled_trimmed(&mutation.get(source).get("expression"), |text| {
                compiler.expression(text, Given::PATCHES, &[patch.value_type()])
            });
        }
    }
}

/// Faults of the match conditions of webhooks.
pub fn check_webhooks(configuration: &At<'_>) {
    for webhook in configuration.get("webhooks").items() {
        let conditions = webhook.get("matchConditions");
        if !conditions.unchanged() {
            match_conditions(&conditions, &Compiler::of_webhook());
        }
    }
}

/// Match conditions and variables; the compiler that knows the variables.
fn common(spec: &At<'_>) -> Compiler {
    match_conditions(&spec.get("matchConditions"), &stateless(spec));
    let mut compiler = Compiler::of_policy(!spec.get("paramKind").is_absent());
    for variable in spec.get("variables").items() {
        let expression = variable.get("expression");
        if expression.text().trim().is_empty() {
            continue;
        }
        if let Some(fault) = compiler.variable(variable.get("name").text(), expression.text()) {
            expression.invalid(fault);
        }
    }
    compiler
}

/// A compiler without variables: upstream does not let match conditions be written with them, though they
/// could use them.
fn stateless(spec: &At<'_>) -> Compiler {
    Compiler::of_conditions(!spec.get("paramKind").is_absent())
}

fn match_conditions(conditions: &At<'_>, compiler: &Compiler) {
    for condition in conditions.items() {
        compiled_trimmed(&condition.get("expression"), |text| {
            compiler.expression(text, Given::AUTHORIZER, &[Type::Bool])
        });
    }
}

fn compiled(at: &At<'_>, compile: impl FnOnce(&str) -> Expression) {
    if at.text().trim().is_empty() {
        return;
    }
    if let Some(fault) = compile(at.text()).fault() {
        at.invalid(fault);
    }
}

/// Where upstream compiles, and shows, the expression without the white space around it.
fn compiled_trimmed(at: &At<'_>, compile: impl FnOnce(&str) -> Expression) {
    let text = at.text().trim();
    if text.is_empty() {
        return;
    }
    if let Some(fault) = compile(text).fault() {
        at.invalid_as(&text.into(), fault);
    }
}
