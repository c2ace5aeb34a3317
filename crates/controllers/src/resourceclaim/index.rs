//! Which pods use a claim or a template.

use client::IndexKey;
use devices::claim_name;
use k8s_openapi::api::core::v1::Pod;

use crate::meta::{Key, namespace};

/// A key as indexes have it.
pub(super) fn joined((namespace, name): &Key) -> String {
    format!("{namespace}/{name}")
}

/// Pods by the claims that they have.
pub(super) struct ByClaim;

/// Pods by the templates that they name.
pub(super) struct ByTemplate;

impl IndexKey<Pod> for ByClaim {
    fn values(pod: &Pod) -> Vec<String> {
        let entries = pod.spec.iter().flat_map(|s| s.resource_claims.iter().flatten());
        let names = entries.filter_map(|entry| claim_name(pod, entry).ok()?.name());
        names.map(|name| format!("{}/{name}", namespace(&pod.metadata))).collect()
    }
}

impl IndexKey<Pod> for ByTemplate {
    fn values(pod: &Pod) -> Vec<String> {
        let entries = pod.spec.iter().flat_map(|s| s.resource_claims.iter().flatten());
        let names = entries.filter_map(|entry| entry.resource_claim_template_name.as_deref());
        names.map(|name| format!("{}/{name}", namespace(&pod.metadata))).collect()
    }
}
