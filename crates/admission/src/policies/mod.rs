//! Admission policies by expression: ValidatingAdmissionPolicy and MutatingAdmissionPolicy with their bindings.
//!
//! [`Policies`] holds the compiled policies of a server as an immutable snapshot that is replaced as a whole
//! when the store changes. The plugins [`Validating`] and [`Mutating`] evaluate it on a request. A policy
//! without bindings does nothing.

mod binding;
mod check;
pub(crate) mod figures;
mod matched;
mod mutating;
mod params;
mod policy;
mod schema_types;
mod snapshot;
#[cfg(test)]
mod tests;
mod type_checking;
mod validating;

pub use check::{check_mutating, check_validating, check_webhooks};
pub use mutating::Mutating;
pub use snapshot::Policies;
pub use type_checking::{
    GroupVersionKind, NamedResource, Warning, check_types, kinds_to_check, named_resources,
    param_kind,
};
pub use validating::Validating;
