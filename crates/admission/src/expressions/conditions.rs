//! Match conditions: expressions that decide whether a webhook or policy looks at a request at all (apiserver
//! `plugin/webhook/matchconditions`).

use cel::{Type, Value as Cel, Variable};
use serde_json::Value;

use super::activation::{Activation, Budget, Inputs};
use super::compiler::{Compiler, Expression, Given};

/// The failure policy: whether a request is refused when an expression fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FailurePolicy {
    #[default]
    Fail,
    Ignore,
}

impl FailurePolicy {
    /// Of a policy's or webhook's `failurePolicy`.
    pub fn of(value: &Value) -> FailurePolicy {
        match value.as_str() {
            Some("Ignore") => FailurePolicy::Ignore,
            _ => FailurePolicy::Fail,
        }
    }
}

#[derive(Debug)]
pub struct Condition {
    pub name: Box<str>,
    expression: Expression,
}

/// The conditions of one webhook or policy.
#[derive(Debug)]
pub struct MatchConditions {
    conditions: Vec<Condition>,
    failure: FailurePolicy,
}

/// Whether a request is looked at.
#[derive(Debug, PartialEq, Eq)]
pub enum Matched<'c> {
    Yes,
    /// The condition that does not hold; none where conditions failed and the failure policy ignores that.
    No(Option<&'c str>),
    /// The request must be refused, with this reason.
    Failed(String),
}

impl MatchConditions {
    /// Of `matchConditions`. The compiler is [`Compiler::of_webhook`] or that of the policy.
    pub fn compile(list: &Value, failure: FailurePolicy, compiler: &Compiler) -> MatchConditions {
        let items = list.as_array().map_or(&[][..], Vec::as_slice);
        let condition = |item: &Value| Condition {
            name: item["name"].as_str().unwrap_or("").into(),
            expression: compiler.expression(
                item["expression"].as_str().unwrap_or(""),
                Given::AUTHORIZER,
                &[Type::Bool],
            ),
        };
        MatchConditions { conditions: items.iter().map(condition).collect(), failure }
    }

    pub fn is_empty(&self) -> bool {
        self.conditions.is_empty()
    }

    /// A condition that is false decides, whatever the others are. The namespace object is null here, as
    /// upstream has it; `variables` are those of the policy.
    pub fn matches<'c>(&'c self, inputs: &Inputs<'c>, variables: &'c [Variable]) -> Matched<'c> {
        if self.conditions.is_empty() {
            return Matched::Yes;
        }
        let inputs = Inputs { namespace: None, ..*inputs };
        let mut activation = Activation::new(&inputs, variables);
        let mut budget = Budget::CONDITIONS;
        let mut failed_first = None;
        let mut faults: Vec<String> = Vec::new();
        for condition in &self.conditions {
            match activation.evaluate(&condition.expression, &mut budget) {
                Err(exhausted) => return self.failed(exhausted.to_string()),
                Ok(Ok(Cel::Bool(false))) => {
                    failed_first = failed_first.or(Some(&*condition.name));
                }
                Ok(Ok(_)) => {}
                Ok(Err(fault)) if faults.contains(&fault) => {}
                Ok(Err(fault)) => faults.push(fault),
            }
        }
        match (failed_first, &faults[..]) {
            (Some(name), _) => Matched::No(Some(name)),
            (None, []) => Matched::Yes,
            (None, [one]) => self.failed(one.clone()),
            (None, many) => self.failed(format!("[{}]", many.join(", "))),
        }
    }

    fn failed(&self, why: String) -> Matched<'_> {
        match self.failure {
            FailurePolicy::Fail => Matched::Failed(why),
            FailurePolicy::Ignore => Matched::No(None),
        }
    }
}
