//! One policy evaluated with one parameter (apiserver `policy/validating/validator.go`).

use std::time::{Duration, Instant};

use cel::Value as Cel;

use super::{AuditAnnotation, Validation, Validations};
use crate::expressions::{
    Activation, Budget, Evaluated, Expression, FailurePolicy, Inputs, Matched, OutOfBudget,
};
use crate::policies::policy::Policy;

/// The longest message that an expression may make, in bytes.
const MESSAGE_MAX: usize = 5 * 1024;

/// What one validation, or a failure to evaluate, comes to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Admit,
    /// The expression failed, and the failure policy ignores that.
    Ignored {
        message: String,
    },
    Deny {
        message: String,
        reason: Box<str>,
    },
}

impl Decision {
    /// Expressions that fail deny, unless the failure policy ignores that.
    fn failed(failure: FailurePolicy, message: String) -> Decision {
        match failure {
            FailurePolicy::Ignore => Decision::Ignored { message },
            FailurePolicy::Fail => Decision::Deny { message, reason: "".into() },
        }
    }
}

/// What becomes of an audit annotation that has a value.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Annotation {
    Publish { key: Box<str>, value: String },
    Failed(String),
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// With how long their expressions took.
    pub(super) decisions: Vec<(Decision, Duration)>,
    pub(super) annotations: Vec<Annotation>,
}

impl Outcome {
    fn failed(failure: FailurePolicy, message: String) -> Outcome {
        let decision = (Decision::failed(failure, message), Duration::ZERO);
        Outcome { decisions: vec![decision], annotations: Vec::new() }
    }
}

/// Evaluates the policy. Match conditions, validations, messages and annotations compute the variables anew each,
/// and only messages share the budget of the validations.
pub(super) fn evaluate<'v>(policy: &'v Policy<Validations>, inputs: &Inputs<'v>) -> Outcome {
    match policy.conditions.matches(inputs, &policy.variables) {
        Matched::Yes => {}
        Matched::No(_) => return Outcome::default(),
        Matched::Failed(why) => return Outcome::failed(policy.failure, why),
    }
    let mut budget = Budget::POLICY;
    let validations = &policy.evaluator.validations;
    let expressions = validations.iter().map(|validation| Some(&validation.expression));
    let results = match all(policy, inputs, expressions, &mut budget) {
        Ok(results) => results,
        Err(exhausted) => return Outcome::failed(policy.failure, exhausted.to_string()),
    };
    let without_authorizer = Inputs { authorizer: None, ..*inputs };
    let messages = validations.iter().map(|validation| validation.message_expression.as_ref());
    let messages = all(policy, &without_authorizer, messages, &mut budget);
    let decided = |(at, result): (usize, Option<Timed<'v>>)| {
        let message = match &messages {
            Ok(messages) => Ok(messages.get(at).and_then(|made| Some(&made.as_ref()?.value))),
            Err(exhausted) => Err(*exhausted),
        };
        let took = result.as_ref().map_or(Duration::ZERO, |result| result.took);
        let result = result.map(|result| result.value);
        (decide(policy.failure, &validations[at], result, message), took)
    };
    let decisions = results.into_iter().enumerate().map(decided).collect();
    match annotations(policy, inputs) {
        Ok(annotations) => Outcome { decisions, annotations },
        Err(exhausted) => Outcome::failed(policy.failure, exhausted.to_string()),
    }
}

/// The result of an expression's evaluation, and its duration.
struct Timed<'v> {
    value: Evaluated<'v>,
    took: Duration,
}

/// Evaluates expressions in order with one set of variables; places without an expression stay empty.
fn all<'v>(
    policy: &'v Policy<Validations>,
    inputs: &Inputs<'v>,
    expressions: impl Iterator<Item = Option<&'v Expression>>,
    budget: &mut Budget,
) -> Result<Vec<Option<Timed<'v>>>, OutOfBudget> {
    let mut activation: Option<Activation<'v>> = None;
    let mut evaluated = |expression: &'v Expression| {
        let activation =
            activation.get_or_insert_with(|| Activation::new(inputs, &policy.variables));
        let begun = Instant::now();
        let value = activation.evaluate(expression, budget)?;
        Ok(Timed { value, took: begun.elapsed() })
    };
    expressions.map(|expression| expression.map(&mut evaluated).transpose()).collect()
}

fn decide(
    failure: FailurePolicy,
    validation: &Validation,
    result: Option<Evaluated<'_>>,
    message: Result<Option<&Evaluated<'_>>, OutOfBudget>,
) -> Decision {
    match (result, message) {
        (Some(Err(fault)), _) => Decision::failed(failure, fault),
        (_, Err(exhausted)) => {
            Decision::failed(failure, format!("failed messageExpression: {exhausted}"))
        }
        (Some(Ok(Cel::Bool(true))), _) => Decision::Admit,
        (_, Ok(made)) => {
            Decision::Deny { message: text(validation, made), reason: validation.reason.clone() }
        }
    }
}

/// The message: what its expression says if that is usable, else the one written, else the expression.
fn text(validation: &Validation, made: Option<&Evaluated<'_>>) -> String {
    let made = made.and_then(|value| value.as_ref().ok()).and_then(Cel::as_text).map(str::trim);
    let usable =
        |text: &&str| !text.is_empty() && text.len() <= MESSAGE_MAX && !text.contains('\n');
    let written = validation.message.trim();
    match made.filter(usable) {
        Some(made) => made.to_owned(),
        None if written.is_empty() => {
            format!("failed expression: {}", validation.expression.text.trim())
        }
        None => written.to_owned(),
    }
}

/// The annotations, whose variables see the whole namespace object.
fn annotations<'v>(
    policy: &'v Policy<Validations>,
    inputs: &Inputs<'v>,
) -> Result<Vec<Annotation>, OutOfBudget> {
    let annotations = &policy.evaluator.annotations;
    let without_authorizer = Inputs { authorizer: None, ..*inputs };
    let expressions = annotations.iter().map(|annotation| Some(&annotation.value));
    let results = all(policy, &without_authorizer, expressions, &mut Budget::POLICY.clone())?;
    let pairs = annotations.iter().zip(results.into_iter().flatten());
    Ok(pairs
        .filter_map(|(annotation, result)| published(policy.failure, annotation, result.value))
        .collect())
}

/// `None` if the annotation is left out: it is null or blank, or its failure is ignored.
fn published(
    failure: FailurePolicy,
    annotation: &AuditAnnotation,
    result: Evaluated<'_>,
) -> Option<Annotation> {
    match result {
        Err(_) if failure == FailurePolicy::Ignore => None,
        Err(fault) => Some(Annotation::Failed(fault)),
        Ok(Cel::Null) => None,
        Ok(value) => match value.as_text().map(str::trim) {
            Some("") => None,
            Some(text) => {
                Some(Annotation::Publish { key: annotation.key.clone(), value: text.to_owned() })
            }
            None => Some(Annotation::Failed(format!(
                "valueExpression '{}' resulted in unsupported return type: {}. Return type must be either string or null.",
                annotation.value.text,
                value.type_of().name()
            ))),
        },
    }
}
