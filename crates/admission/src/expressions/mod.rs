//! Expressions of admission: match conditions of webhooks and policies, and everything that policies compute.
//!
//! A [`Compiler`] makes [`Expression`]s in upstream's environment (`object`, `oldObject`, `request`, `params`,
//! `namespaceObject`, `authorizer`, `variables`). An [`Activation`] binds the variables of one request and
//! evaluates expressions against a budget. Expressions that do not compile are kept: each evaluation fails.

mod activation;
mod authorizer;
mod compiler;
mod conditions;
mod request;
#[cfg(test)]
mod tests;

pub use activation::{Activation, Budget, Evaluated, Inputs, OutOfBudget};
pub use authorizer::RequestAuthorizer;
pub use compiler::{Compiler, Expression, Given};
pub use conditions::{Condition, FailurePolicy, MatchConditions, Matched};
pub use request::{admission_request, namespace_object};
