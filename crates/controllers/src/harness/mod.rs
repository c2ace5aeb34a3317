//! What every controller of workloads is built from: a reconciler over keys, owner references with adopt
//! and release, expectations, pod control, indexes, and status writes that are skipped when nothing
//! changes.

mod claim;
mod expectations;
mod hash;
pub(crate) mod history;
mod index;
mod pod_control;
mod rank;
mod reconciler;
mod scaled;
mod status;
#[cfg(test)]
mod tests;
mod watch;

pub(crate) use claim::{Candidates, claim, claim_with_finalizer, selected_by};
pub(crate) use expectations::{EXPECTATIONS_TIMEOUT, Expectations, Pending};
pub(crate) use hash::hash;
pub(crate) use index::{ByController, ByNode, Orphans};
pub(crate) use pod_control::{PodControl, slow_start};
pub(crate) use rank::{by_deletion_order, rank};
pub(crate) use reconciler::{Reconciler, start};
pub(crate) use scaled::scaled;
pub(crate) use status::{same_status, write_status};
pub(crate) use watch::{enqueue, watch_dependents};
