//! Webhooks and policies of admission.

mod policy;
mod rules;
pub(crate) mod webhook;

pub(crate) use policy::{BINDING, MUTATING, MUTATING_BINDING, VALIDATING};
pub(crate) use webhook::KIND as WEBHOOKS;
