//! Variables that are expressions themselves. Each is computed when an expression first asks for it, and once
//! for all expressions that share the composition (apiserver `plugin/cel/composition.go`).

use crate::error::{Error, Failure};
use crate::value::Value;
use crate::{Binding, PER_CALL_LIMIT, Program, eval};

/// A named expression, or why it does not compile.
#[derive(Debug)]
pub struct Variable {
    pub name: Box<str>,
    pub program: Result<Program, String>,
}

/// Variables over one set of bindings.
#[derive(Debug)]
pub struct Composition<'v> {
    variables: &'v [Variable],
    /// In the order of the environment that the variables were compiled in.
    bindings: Vec<Binding<'v>>,
    values: Vec<Option<Result<Value<'v>, Error>>>,
    cost: u64,
}

impl<'v> Composition<'v> {
    pub fn new(variables: &'v [Variable], bindings: Vec<Binding<'v>>) -> Composition<'v> {
        Composition { variables, bindings, values: vec![None; variables.len()], cost: 0 }
    }

    pub fn bindings(&self) -> &[Binding<'v>] {
        &self.bindings
    }

    /// The cost of the variables that were computed since this was last asked for.
    pub fn take_cost(&mut self) -> u64 {
        std::mem::take(&mut self.cost)
    }

    /// The last variable of a name, as upstream's map of them keeps it.
    fn find(&self, name: &str) -> Option<usize> {
        self.variables.iter().rposition(|variable| &*variable.name == name)
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    pub(crate) fn value(&mut self, name: &str) -> Result<Value<'v>, Error> {
        let Some(at) = self.find(name) else { return Err(Error::no_key(&name)) };
        if let Some(value) = &self.values[at] {
            return value.clone();
        }
        let circular = format!("composited variable {name:?} refers to itself");
        self.values[at] = Some(Err(Error::new(circular)));
        let value = self.compute(at);
        self.values[at] = Some(value.clone());
        value
    }

    fn compute(&mut self, at: usize) -> Result<Value<'v>, Error> {
        let variables = self.variables;
        let Variable { name, program } = &variables[at];
        let program = program.as_ref().map_err(|fault| {
            Error::new(format!("composited variable {name:?} fails to compile: {fault}"))
        })?;
        let bindings = self.bindings.clone();
        let (value, cost) =
            eval::run(&program.plan, &program.variables, bindings, PER_CALL_LIMIT, Some(self));
        self.cost = self.cost.saturating_add(cost);
        value.map_err(|failure: Failure| {
            Error::new(format!("composited variable {name:?} fails to evaluate: {failure}"))
        })
    }
}
