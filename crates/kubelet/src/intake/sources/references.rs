//! What a static pod may not refer to: objects of the API, which the node may not reach. Pure.

use serde_json::Value;

/// Where a volume may name a Secret.
const VOLUME_SECRETS: [&str; 10] = [
    "/azureFile/secretName",
    "/cephfs/secretRef/name",
    "/cinder/secretRef/name",
    "/csi/nodePublishSecretRef/name",
    "/flexVolume/secretRef/name",
    "/iscsi/secretRef/name",
    "/rbd/secretRef/name",
    "/scaleIO/secretRef/name",
    "/secret/secretName",
    "/storageos/secretRef/name",
];

/// Volumes by the word that the refusal has for what they refer to.
const VOLUMES: [(&str, &str); 7] = [
    ("configMap", "configmaps (via configmap volumes)"),
    ("secret", "secrets (via secret volumes)"),
    ("csi", "csidrivers (via CSI volumes)"),
    ("glusterfs", "endpoints (via glusterFS volumes)"),
    ("persistentVolumeClaim", "persistentvolumeclaims"),
    ("ephemeral", "persistentvolumeclaims (via ephemeral volumes)"),
    ("azureFile", "secrets (via azureFile volumes)"),
];

/// Sources of projected volumes, likewise.
const PROJECTED: [(&str, &str); 5] = [
    ("configMap", "configmaps (via projected volumes)"),
    ("secret", "secrets (via projected volumes)"),
    ("serviceAccountToken", "serviceaccounts (via projected volumes)"),
    ("clusterTrustBundle", "clustertrustbundles"),
    ("podCertificate", "podcertificates"),
];

fn items<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    value[key].as_array().into_iter().flatten()
}

fn projected(volume: &Value) -> impl Iterator<Item = &Value> {
    items(&volume["projected"], "sources")
}

/// The word for the first kind of objects that the pod's spec refers to.
pub(super) fn find(spec: &Value) -> Result<Option<&'static str>, String> {
    if spec["serviceAccountName"].as_str().is_some_and(|name| !name.is_empty()) {
        return Ok(Some("serviceaccounts"));
    }
    if has_secrets(spec) {
        return Ok(Some("secrets"));
    }
    if has_config_maps(spec) {
        return Ok(Some("configmaps"));
    }
    if items(spec, "resourceClaims").next().is_some() {
        return Ok(Some("resourceclaims"));
    }
    for volume in items(spec, "volumes") {
        if let Some(what) = of_volume(volume)? {
            return Ok(Some(what));
        }
    }
    Ok(None)
}

fn of_volume(volume: &Value) -> Result<Option<&'static str>, String> {
    let named = VOLUMES.iter().find(|(field, _)| volume[*field].is_object());
    if let Some((_, what)) = named {
        return Ok(Some(what));
    }
    for source in projected(volume) {
        if let Some((_, what)) = PROJECTED.iter().find(|(field, _)| source[*field].is_object()) {
            return Ok(Some(what));
        }
        if !source["downwardAPI"].is_object() {
            let name = volume["name"].as_str().unwrap_or("");
            return Err(format!("unknown source for projected volume {name:?}"));
        }
    }
    Ok(None)
}

fn containers(spec: &Value) -> impl Iterator<Item = &Value> {
    let lists = ["initContainers", "containers", "ephemeralContainers"];
    lists.into_iter().flat_map(|list| items(spec, list))
}

/// Whether a container's environment takes something from such an object.
fn in_environment(spec: &Value, key: &str, whole: &str) -> bool {
    containers(spec).any(|container| {
        items(container, "env").any(|env| env["valueFrom"][key].is_object())
            || items(container, "envFrom").any(|from| from[whole].is_object())
    })
}

fn has_secrets(spec: &Value) -> bool {
    let named =
        |value: Option<&Value>| value.and_then(Value::as_str).is_some_and(|name| !name.is_empty());
    items(spec, "imagePullSecrets").next().is_some()
        || in_environment(spec, "secretKeyRef", "secretRef")
        || items(spec, "volumes").any(|volume| {
            VOLUME_SECRETS.iter().any(|place| named(volume.pointer(place)))
                || projected(volume).any(|source| source["secret"].is_object())
        })
}

fn has_config_maps(spec: &Value) -> bool {
    in_environment(spec, "configMapKeyRef", "configMapRef")
        || items(spec, "volumes").any(|volume| {
            volume["configMap"].is_object()
                || projected(volume).any(|source| source["configMap"].is_object())
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_kind_of_reference_is_refused_by_its_name() {
        let env =
            |from: Value| json!({"containers": [{"env": [{"name": "A", "valueFrom": from}]}]});
        let volume = |source: Value| json!({"volumes": [source]});
        let part =
            |source: Value| json!({"volumes": [{"name": "v", "projected": {"sources": [source]}}]});
        for (spec, what) in [
            (json!({"serviceAccountName": "a"}), "serviceaccounts"),
            (json!({"imagePullSecrets": [{"name": "a"}]}), "secrets"),
            (env(json!({"secretKeyRef": {"name": "s", "key": "k"}})), "secrets"),
            (env(json!({"configMapKeyRef": {"name": "s", "key": "k"}})), "configmaps"),
            (json!({"initContainers": [{"envFrom": [{"secretRef": {"name": "s"}}]}]}), "secrets"),
            (json!({"containers": [{"envFrom": [{"configMapRef": {"name": "s"}}]}]}), "configmaps"),
            (json!({"resourceClaims": [{"name": "r"}]}), "resourceclaims"),
            (volume(json!({"secret": {"secretName": "s"}})), "secrets"),
            (volume(json!({"secret": {}})), "secrets (via secret volumes)"),
            (volume(json!({"iscsi": {"secretRef": {"name": "s"}}})), "secrets"),
            (volume(json!({"configMap": {"name": "m"}})), "configmaps"),
            (volume(json!({"csi": {"driver": "d"}})), "csidrivers (via CSI volumes)"),
            (volume(json!({"glusterfs": {"endpoints": "e"}})), "endpoints (via glusterFS volumes)"),
            (
                volume(json!({"persistentVolumeClaim": {"claimName": "c"}})),
                "persistentvolumeclaims",
            ),
            (volume(json!({"ephemeral": {}})), "persistentvolumeclaims (via ephemeral volumes)"),
            (volume(json!({"azureFile": {"shareName": "s"}})), "secrets (via azureFile volumes)"),
            (part(json!({"configMap": {"name": "m"}})), "configmaps"),
            (part(json!({"secret": {"name": "m"}})), "secrets"),
            (
                part(json!({"serviceAccountToken": {"path": "p"}})),
                "serviceaccounts (via projected volumes)",
            ),
            (part(json!({"clusterTrustBundle": {"path": "p"}})), "clustertrustbundles"),
            (part(json!({"podCertificate": {}})), "podcertificates"),
        ] {
            assert_eq!(find(&spec), Ok(Some(what)), "{spec}");
        }
        let unknown = find(&part(json!({}))).unwrap_err();
        assert_eq!(unknown, "unknown source for projected volume \"v\"");
    }

    #[test]
    fn what_the_node_has_itself_is_no_reference() {
        let spec = json!({
            "containers": [{"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}],
            "volumes": [
                {"hostPath": {"path": "/etc"}}, {"emptyDir": {}}, {"downwardAPI": {}},
                {"name": "v", "projected": {"sources": [{"downwardAPI": {}}]}},
                {"image": {"reference": "i"}},
            ],
        });
        assert_eq!(find(&spec), Ok(None));
    }
}
