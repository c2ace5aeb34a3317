//! Whether a PersistentVolume may be used on this node.

use k8s_openapi::api::core::v1::{Node, PersistentVolume};

use crate::admission;

pub(super) fn check(volume: &PersistentVolume, node: &Node) -> Result<(), &'static str> {
    let affinity = volume.spec.as_ref().and_then(|s| s.node_affinity.as_ref());
    let Some(required) = affinity.and_then(|a| a.required.as_ref()) else { return Ok(()) };
    let fits = required.node_selector_terms.iter().any(|t| admission::term_matches(t, node));
    if fits { Ok(()) } else { Err("no matching NodeSelectorTerms") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_local_volume_is_refused_on_another_node() {
        let volume: PersistentVolume = serde_json::from_value(json!({"metadata": {}, "spec": {
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                {"key": "kubernetes.io/hostname", "operator": "In", "values": ["a"]}]}]}}}}))
        .unwrap();
        let node = |name: &str| -> Node {
            let labels = json!({"kubernetes.io/hostname": name});
            serde_json::from_value(json!({"metadata": {"labels": labels}})).unwrap()
        };
        assert_eq!(check(&volume, &node("a")), Ok(()));
        assert_eq!(check(&volume, &node("b")), Err("no matching NodeSelectorTerms"));
        assert_eq!(check(&PersistentVolume::default(), &node("b")), Ok(()));
    }
}
