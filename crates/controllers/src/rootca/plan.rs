//! The ConfigMap as it shall be.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

pub(crate) const NAME: &str = "kube-root-ca.crt";
const KEY: &str = "ca.crt";
const DESCRIPTION_KEY: &str = "kubernetes.io/description";
const DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. \
No other usage is guaranteed across distributions of Kubernetes clusters.";

/// The map to write, if it must be written.
pub(crate) fn plan(namespace: &str, ca: &str, present: Option<&ConfigMap>) -> Option<ConfigMap> {
    let mut map = present.cloned().unwrap_or_else(|| ConfigMap {
        metadata: ObjectMeta {
            name: Some(NAME.into()),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        ..ConfigMap::default()
    });
    map.data = Some(BTreeMap::from([(KEY.to_owned(), ca.to_owned())]));
    let annotations = map.metadata.annotations.get_or_insert_default();
    annotations.entry(DESCRIPTION_KEY.into()).or_insert_with(|| DESCRIPTION.into());
    (present != Some(&map)).then_some(map)
}
