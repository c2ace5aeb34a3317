//! The indexes that several controllers share.

use client::{IndexKey, Resource};
use k8s_openapi::api::core::v1::Pod;

use crate::meta::{controller, namespace};
use crate::pods;

/// Objects by the uid of the controller that owns them.
pub(crate) struct ByController;

impl<K: Resource> IndexKey<K> for ByController {
    fn values(object: &K) -> Vec<String> {
        controller(object.metadata()).map(|owner| owner.uid.clone()).into_iter().collect()
    }
}

/// Objects without a controller, by namespace.
pub(crate) struct Orphans;

impl<K: Resource> IndexKey<K> for Orphans {
    fn values(object: &K) -> Vec<String> {
        match controller(object.metadata()) {
            Some(_) => Vec::new(),
            None => vec![namespace(object.metadata()).to_owned()],
        }
    }
}

/// Pods by the node they are bound to; pods without a node by the empty name.
pub(crate) struct ByNode;

impl IndexKey<Pod> for ByNode {
    fn values(pod: &Pod) -> Vec<String> {
        vec![pods::node(pod).to_owned()]
    }
}
