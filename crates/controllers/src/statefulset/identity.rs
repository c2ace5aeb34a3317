//! Names and ordinals: which pod of a StatefulSet is which.

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::Pod;

use crate::meta::name;

pub(crate) const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
pub(crate) const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

pub(crate) fn spec(set: &StatefulSet) -> &StatefulSetSpec {
    static EMPTY: std::sync::LazyLock<StatefulSetSpec> =
        std::sync::LazyLock::new(StatefulSetSpec::default);
    set.spec.as_ref().unwrap_or(&EMPTY)
}

/// How many pods, and the ordinal of the first.
pub(crate) fn range(set: &StatefulSet) -> (i32, i32) {
    let start = spec(set).ordinals.as_ref().and_then(|o| o.start).unwrap_or(0);
    (start, spec(set).replicas.unwrap_or(1))
}

/// The set's name and the ordinal in the pod's name.
fn parsed(pod: &Pod) -> Option<(&str, i32)> {
    let (set, ordinal) = name(&pod.metadata).rsplit_once('-')?;
    let digits = !ordinal.is_empty() && ordinal.bytes().all(|b| b.is_ascii_digit());
    Some((set, ordinal.parse().ok().filter(|_| digits)?))
}

/// The ordinal of a pod of any set.
pub(crate) fn ordinal(pod: &Pod) -> Option<i32> {
    parsed(pod).map(|(_, ordinal)| ordinal)
}

/// Whether the pod's name is one of the set's.
pub(crate) fn is_member(set: &StatefulSet, pod: &Pod) -> bool {
    parsed(pod).is_some_and(|(of, _)| of == name(&set.metadata))
}

/// The pod's place among the replicas; `None` if the set is to have no such pod.
pub(crate) fn position(set: &StatefulSet, ordinal: i32) -> Option<usize> {
    let (start, count) = range(set);
    usize::try_from(ordinal.checked_sub(start)?).ok().filter(|at| *at < count as usize)
}

pub(crate) fn pod_name(set: &StatefulSet, ordinal: i32) -> String {
    format!("{}-{ordinal}", name(&set.metadata))
}

pub(crate) fn claim_name(set: &StatefulSet, template: &str, ordinal: i32) -> String {
    format!("{template}-{}-{ordinal}", name(&set.metadata))
}
