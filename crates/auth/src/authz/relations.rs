//! Whether an object is related to a node: bound to it, or named by what is.
//!
//! The pods of a node are few, so the question is answered from them at the time it is asked, not
//! from a graph kept for all nodes.

use serde_json::Value;

use super::references;
use crate::objects::Objects;

const STORAGE: &str = "storage.k8s.io";

/// Something a node may be related to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Object {
    Account,
    Attachment,
    Claim,
    ConfigMap,
    Pod,
    ResourceClaim,
    ResourceSlice,
    Secret,
    Volume,
}

/// The objects around one node.
pub(super) struct Relations<'a> {
    pub(super) objects: &'a dyn Objects,
    pub(super) node: &'a str,
}

impl Relations<'_> {
    pub(super) fn reach(&self, object: Object, (namespace, name): (&str, &str)) -> bool {
        let key = || format!("{namespace}/{name}");
        match object {
            Object::Pod => self.is_bound(("", "pods"), &key()),
            Object::Attachment => self.is_bound((STORAGE, "volumeattachments"), name),
            Object::ResourceSlice => self.is_bound(("resource.k8s.io", "resourceslices"), name),
            Object::Volume => self.volume(name),
            Object::Secret => {
                self.by_pod(object, namespace, name) || self.by_volume(namespace, name)
            }
            _ => self.by_pod(object, namespace, name),
        }
    }

    fn read(&self, (group, resource): (&str, &str), key: &str) -> Option<Value> {
        self.objects.of(group, resource)?.get(key).map(|object| object.to_value())
    }

    /// Objects that say themselves which node they are for.
    fn is_bound(&self, resource: (&str, &str), key: &str) -> bool {
        self.read(resource, key).is_some_and(|object| object["spec"]["nodeName"] == self.node)
    }

    fn by_pod(&self, object: Object, namespace: &str, name: &str) -> bool {
        self.pods(namespace).iter().any(|pod| names(pod, object, name))
    }

    /// The node's pods in a namespace that give it rights: a mirror pod is its own writing.
    fn pods(&self, namespace: &str) -> Vec<Value> {
        let Some(pods) = self.objects.of("", "pods") else { return Vec::new() };
        let all = pods.list_by(("spec.nodeName", self.node), &format!("{namespace}/"));
        let trees = all.iter().map(|object| object.to_value());
        trees.filter(|pod| !is_mirror(pod)).collect()
    }

    fn volume(&self, name: &str) -> bool {
        let volume = self.read(("", "persistentvolumes"), name);
        volume.is_some_and(|volume| self.claims(&volume))
    }

    /// Whether the volume is bound to a claim of a pod here.
    fn claims(&self, volume: &Value) -> bool {
        let claim = &volume["spec"]["claimRef"];
        let text = |key: &str| claim[key].as_str().unwrap_or("");
        claim.is_object() && self.by_pod(Object::Claim, text("namespace"), text("name"))
    }

    /// Secrets that a bound volume names.
    fn by_volume(&self, namespace: &str, name: &str) -> bool {
        let Some(volumes) = self.objects.of("", "persistentvolumes") else { return false };
        let all = volumes.list("", &|_| true);
        all.iter().map(|object| object.to_value()).any(|volume| {
            references::secrets_of_volume(&volume).contains(&(namespace, name))
                && self.claims(&volume)
        })
    }
}

fn is_mirror(pod: &Value) -> bool {
    pod["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_string()
}

fn names(pod: &Value, object: Object, name: &str) -> bool {
    match object {
        Object::Account => pod["spec"]["serviceAccountName"] == name,
        Object::Claim => references::claims(pod).any(|n| n == name),
        Object::ConfigMap => references::config_maps(pod).any(|n| n == name),
        Object::ResourceClaim => references::resource_claims(pod).any(|n| n == name),
        Object::Secret => references::secrets(pod).any(|n| n == name),
        Object::Attachment | Object::Pod | Object::ResourceSlice | Object::Volume => false,
    }
}
