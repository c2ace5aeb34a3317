//! The variables of one request bound, and the evaluation of expressions within a budget (apiserver
//! `plugin/cel/activation.go`).

use cel::{Composition, PER_CALL_LIMIT, Value as Cel, Variable};
use serde_json::Value;

use super::authorizer::RequestAuthorizer;
use super::compiler::Expression;

const NO_BUDGET: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";

/// The values of the variables. An absent one is null.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'v> {
    pub object: Option<&'v Value>,
    pub old_object: Option<&'v Value>,
    /// As [`super::admission_request`] makes it.
    pub request: &'v Value,
    pub params: Option<&'v Value>,
    /// As [`super::namespace_object`] makes it.
    pub namespace: Option<&'v Value>,
    /// Unbound where there is none.
    pub authorizer: Option<&'v RequestAuthorizer<'v>>,
}

/// The cost that may still be spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget(u64);

impl Budget {
    /// For all expressions of one policy with one parameter (`RuntimeCELCostBudget`).
    pub const POLICY: Budget = Budget(cel::RUNTIME_BUDGET);
    /// For all match conditions of a policy or webhook (`RuntimeCELCostBudgetMatchConditions`).
    pub const CONDITIONS: Budget = Budget(cel::RUNTIME_BUDGET / 4);

    fn spend(&mut self, cost: u64) -> Result<(), OutOfBudget> {
        self.0 = self.0.checked_sub(cost).ok_or(OutOfBudget)?;
        Ok(())
    }
}

/// No expression is evaluated any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutOfBudget;

impl std::fmt::Display for OutOfBudget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(NO_BUDGET)
    }
}

/// A value, or why there is none, in upstream's words.
pub type Evaluated<'v> = Result<Cel<'v>, String>;

/// Expressions that are evaluated together share the variables' values.
#[derive(Debug)]
pub struct Activation<'v> {
    composition: Composition<'v>,
}

impl<'v> Activation<'v> {
    pub fn new(inputs: &Inputs<'v>, variables: &'v [Variable]) -> Activation<'v> {
        let data = |value: Option<&'v Value>| Some(Ok(value.map_or(Cel::Null, Cel::of_any)));
        let bindings = vec![
            data(inputs.object),
            data(inputs.old_object),
            data(inputs.namespace),
            data(Some(inputs.request)),
            data(inputs.params),
            inputs.authorizer.map(|authorizer| Ok(Cel::authorizer(authorizer))),
            inputs.authorizer.map(|authorizer| {
                Ok(Cel::resource_check(authorizer, authorizer.request_resource()))
            }),
            Some(Ok(Cel::Variables)),
        ];
        Activation { composition: Composition::new(variables, bindings) }
    }

    /// The cost of the expression, and of the variables that it is the first to use, is taken from the budget.
    pub fn evaluate(
        &mut self,
        expression: &'v Expression,
        budget: &mut Budget,
    ) -> Result<Evaluated<'v>, OutOfBudget> {
        let program = match &expression.program {
            Ok(program) => program,
            Err(fault) => return Ok(Err(format!("compilation error: {fault}"))),
        };
        let outcome = program.run_composed(&mut self.composition, PER_CALL_LIMIT);
        budget.spend(self.composition.take_cost())?;
        budget.spend(outcome.cost)?;
        Ok(outcome.value.map_err(|failure| {
            format!("expression '{}' resulted in error: {failure}", expression.text)
        }))
    }
}
