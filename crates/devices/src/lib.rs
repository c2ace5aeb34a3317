//! Dynamic resource allocation, the pure part: which devices a claim gets on a node, and which claims a
//! pod has.
//!
//! [`Slice`]s are ResourceSlices read once. An [`Allocator`] looks at all [`Slices`], at what is [`Allocated`]
//! already and at device classes, and finds devices for all claims of a pod on one node, or says that
//! there are none. Selectors are CEL expressions, kept by [`Selectors`]. The rules are those of upstream
//! v1.36 with its default gates (`dynamic-resource-allocation/structured`, "incubating"): prioritized
//! lists, admin access, taints, partitionable devices, consumable capacity, binding conditions.
//!
//! Nothing here knows informers, the scheduler, time or threads.

mod allocated;
mod allocator;
mod capacity;
mod claims;
mod constraint;
mod counters;
mod environment;
mod pool;
mod request;
mod results;
mod selector;
mod slice;
mod slices;
mod taint;
#[cfg(test)]
mod tests;

pub use allocated::Allocated;
pub use allocator::Allocator;
pub use claims::{ClaimName, Unnamed, claim_name, is_for_pod, is_reserved_for};
pub use environment::{Environment, Fault, NodeView, RESULTS_MAX};
pub use selector::Selectors;
pub use slice::{DeviceId, Slice};
pub use slices::Slices;
pub use taint::tolerates;

/// The finalizer of claims that are allocated.
pub const FINALIZER: &str = "resource.kubernetes.io/delete-protection";
/// Names the entry of a pod's `resourceClaims` that a claim was generated for.
pub const POD_CLAIM_ANNOTATION: &str = "resource.kubernetes.io/pod-claim-name";
/// The most alternatives of a request.
pub const ALTERNATIVES_MAX: usize = 8;
