//! Field management: which manager owns which fields of an object, and server-side apply.
//!
//! Everything here is pure and directed by [`crate::schema`]: a [`FieldSet`] is a tree of paths,
//! [`compare`](Differences::between) finds what a change touched, [`merge`] lays an applied
//! configuration over an object, [`Managers`] is `metadata.managedFields` decoded, and
//! [`Manage`] does the two operations on them, update and apply. Who is asking and what time it
//! is comes from the caller.

mod atomics;
mod compare;
mod created;
mod element;
mod extract;
mod filter;
mod folded;
mod last_applied;
mod managers;
mod merge;
mod node;
mod nodes;
mod operate;
mod owned;
mod remove;
mod set;
mod versions;

pub use atomics::atomics;
pub use compare::Differences;
pub use element::{Element, Path, Scalar, go_json};
pub use extract::{check, fields};
pub use filter::Filter;
pub use folded::{folded, unfold, unfolded};
pub(crate) use folded::{is_folded, read as read_folded};
pub use last_applied::ANNOTATION as LAST_APPLIED;
pub use managers::{Entry, Identity, Managers, is_reset};
pub use merge::merge;
pub use node::Node;
pub use operate::{ApplyError, Conflict, Manage};
pub use owned::Owned;
pub use remove::remove;
pub use set::FieldSet;
pub use versions::{Versions, View};

#[cfg(test)]
mod tests;
