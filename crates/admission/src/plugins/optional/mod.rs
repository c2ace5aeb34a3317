//! Plugins that are off unless `--enable-admission-plugins` names them.

pub(super) mod always;
pub(super) mod event_rate;
pub(super) mod image_policy;
#[cfg(test)]
mod image_tests;
pub(super) mod images;
pub(super) mod namespaces;
pub(super) mod node_selector;
pub(super) mod owner_references;
pub(super) mod pods;
pub(super) mod services;
#[cfg(test)]
mod tests;
pub(super) mod tolerations;
