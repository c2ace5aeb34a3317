//! What every controller of workloads is built from: a reconciler over keys, owner references with adopt
//! and release, expectations, pod control, indexes, and status writes that are skipped when nothing
//! changes.

mod claim;
mod expectations;
mod index;
mod pod_control;
mod rank;
mod reconciler;
mod status;
#[cfg(test)]
mod tests;
mod watch;

pub(crate) use claim::{Candidates, claim, claim_with_finalizer};
pub(crate) use expectations::{EXPECTATIONS_TIMEOUT, Expectations, Pending};
pub(crate) use index::{ByController, ByNode, Orphans};
pub(crate) use pod_control::PodControl;
pub(crate) use rank::{by_deletion_order, rank};
pub(crate) use reconciler::{Reconciler, start};
pub(crate) use status::{same_status, write_status};
pub(crate) use watch::{enqueue, watch_dependents};
