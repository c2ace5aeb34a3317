//! Audit: who did what, by a policy of the administrator (audit.k8s.io/v1, apiserver `pkg/audit`).
//!
//! A [`Policy`] decides for each request how much is told of it ([`Audited`]). A [`Record`] collects it on the
//! request's way; at each stage that is not omitted, the [`Sinks`] get an event: files ([`LogFile`]), or whatever
//! takes lists of events ([`Deliver`]), one by one or in batches.

mod batch;
mod event;
mod log;
mod policy;
mod record;
mod sinks;
mod stage;
mod truncation;

#[cfg(test)]
mod tests;

pub use batch::{Batching, Deliver};
pub use event::Event;
pub use log::{LogFile, Rotation};
pub use policy::{Audited, Level, Policy, PolicyError};
pub use record::{Auditor, Record, Request};
pub use sinks::{Mode, Sink, Sinks};
pub use stage::Stage;
pub use truncation::Truncation;
