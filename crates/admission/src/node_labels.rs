//! Labels that a kubelet may not set on its Node: they would steer workloads to it.

use std::collections::BTreeSet;

use serde_json::Value;

/// Nobody but administrators sets labels below this.
const RESTRICTED: &str = "node-restriction.kubernetes.io";
/// Of Kubernetes' own labels, those that kubelets set.
const OWN: [&str; 11] = [
    "kubernetes.io/hostname",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
];
/// And those below these.
const OWN_BELOW: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];

/// The keys that differ and may not, in order.
pub fn forbidden(new: &Value, old: &Value) -> Vec<String> {
    let keys = |labels: &Value| -> Vec<String> {
        labels.as_object().into_iter().flatten().map(|(key, _)| key.clone()).collect()
    };
    let all: BTreeSet<String> = keys(new).into_iter().chain(keys(old)).collect();
    let changed = all.into_iter().filter(|key| new.get(key) != old.get(key));
    changed.filter(|key| is_forbidden(key)).collect()
}

/// Whether a kubelet may not set this label on its Node.
pub fn is_forbidden(key: &str) -> bool {
    let space = key.split_once('/').map_or("", |(space, _)| space);
    let kubernetes = below(space, "kubernetes.io") || below(space, "k8s.io");
    let own = OWN.contains(&key) || OWN_BELOW.iter().any(|allowed| below(space, allowed));
    below(space, RESTRICTED) || kubernetes && !own
}

/// Why a kubelet cannot be told to set a label.
pub fn refusal(key: &str) -> Option<String> {
    let mut own = OWN.to_vec();
    own.sort_unstable();
    is_forbidden(key).then(|| {
        format!(
            "unknown 'kubernetes.io' or 'k8s.io' labels specified with --node-labels: [{key}]\n--node-labels in the 'kubernetes.io' namespace must begin with an allowed prefix ({}) or be in the specifically allowed set ({})",
            OWN_BELOW.join(", "),
            own.join(", ")
        )
    })
}

fn below(space: &str, domain: &str) -> bool {
    let rest = space.strip_suffix(domain);
    rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_labels_of_kubelets_and_foreign_ones_are_free() {
        let new = json!({
            "kubernetes.io/hostname": "n", "example.com/x": "1", "kubelet.kubernetes.io/x": "1",
            "a.node.kubernetes.io/x": "1", "plain": "1", "notkubernetes.io/x": "1",
            "node-role.kubernetes.io/control-plane": "", "node-restriction.kubernetes.io/x": "1",
            "a.node-restriction.kubernetes.io/x": "1", "x.k8s.io/y": "1", "kubernetes.io/x": "1",
            "kept.k8s.io/x": "1",
        });
        let old = json!({"kept.k8s.io/x": "1", "gone.k8s.io/x": "1"});
        let found = [
            "a.node-restriction.kubernetes.io/x",
            "gone.k8s.io/x",
            "kubernetes.io/x",
            "node-restriction.kubernetes.io/x",
            "node-role.kubernetes.io/control-plane",
            "x.k8s.io/y",
        ];
        assert_eq!(forbidden(&new, &old), found);
    }
}
