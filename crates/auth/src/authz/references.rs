//! Objects that a pod or a volume names: they are what a node may read for the pods bound to it, and
//! what a mirror pod may not name.
//!
//! Rule: `VisitPodSecretNames`, `VisitPodConfigmapNames`, `VisitPVSecretNames` and
//! `HasAPIObjectReference`. Pure.

use serde_json::Value;

const CONTAINERS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];
/// Volumes of pods whose source has a `secretRef`.
const SECRET_REFS: [&str; 7] =
    ["cephfs", "cinder", "flexVolume", "rbd", "scaleIO", "iscsi", "storageos"];
/// Of these, the volumes that must say where their secret is; that of others is beside the claim.
const PLACED: [&str; 2] = ["cinder", "storageos"];
/// Volume sources that need nothing of the API.
const FREE: [&str; 22] = [
    "awsElasticBlockStore",
    "azureDisk",
    "cephfs",
    "cinder",
    "downwardAPI",
    "emptyDir",
    "fc",
    "flexVolume",
    "flocker",
    "gcePersistentDisk",
    "gitRepo",
    "hostPath",
    "image",
    "iscsi",
    "nfs",
    "photonPersistentDisk",
    "portworxVolume",
    "quobyte",
    "rbd",
    "scaleIO",
    "storageos",
    "vsphereVolume",
];
/// Volume sources that name an object, and the object as refusals call it.
const BOUND: [(&str, &str); 7] = [
    ("configMap", "configmaps (via configmap volumes)"),
    ("secret", "secrets (via secret volumes)"),
    ("csi", "csidrivers (via CSI volumes)"),
    ("glusterfs", "endpoints (via glusterFS volumes)"),
    ("persistentVolumeClaim", "persistentvolumeclaims"),
    ("ephemeral", "persistentvolumeclaims (via ephemeral volumes)"),
    ("azureFile", "secrets (via azureFile volumes)"),
];
/// The same of the sources of projected volumes; one is free.
const PROJECTED: [(&str, Option<&str>); 6] = [
    ("configMap", Some("configmaps (via projected volumes)")),
    ("secret", Some("secrets (via projected volumes)")),
    ("serviceAccountToken", Some("serviceaccounts (via projected volumes)")),
    ("clusterTrustBundle", Some("clustertrustbundles")),
    ("podCertificate", Some("podcertificates")),
    ("downwardAPI", None),
];

/// The items of a list; none where there is no such list.
fn items<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value[key].as_array().into_iter().flatten()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or("")
}

fn is_set(value: &Value, key: &str) -> bool {
    value.get(key).is_some_and(|set| !set.is_null())
}

fn volumes(pod: &Value) -> impl Iterator<Item = &Value> {
    items(&pod["spec"], "volumes")
}

/// Names in the environment of all containers: of the keys `one` and of the whole objects `all`.
fn in_environment<'a>(pod: &'a Value, one: &'a str, all: &'a str) -> impl Iterator<Item = &'a str> {
    let containers = CONTAINERS.iter().flat_map(|kind| items(&pod["spec"], kind));
    containers.flat_map(move |container| {
        let single = items(container, "env").map(move |env| text(&env["valueFrom"][one], "name"));
        let whole = items(container, "envFrom").map(move |from| text(&from[all], "name"));
        single.chain(whole)
    })
}

fn projected<'a>(volume: &'a Value, kind: &'a str) -> impl Iterator<Item = &'a str> {
    items(&volume["projected"], "sources").map(move |source| text(&source[kind], "name"))
}

/// Secrets that the pod names.
pub fn secrets(pod: &Value) -> impl Iterator<Item = &str> {
    let pulled = items(&pod["spec"], "imagePullSecrets").map(|pull| text(pull, "name"));
    let mounted = volumes(pod).flat_map(|volume| {
        let own = [
            text(&volume["secret"], "secretName"),
            text(&volume["azureFile"], "secretName"),
            text(&volume["csi"]["nodePublishSecretRef"], "name"),
        ];
        let refs = SECRET_REFS.iter().map(move |kind| text(&volume[*kind]["secretRef"], "name"));
        own.into_iter().chain(refs).chain(projected(volume, "secret"))
    });
    let all = pulled.chain(in_environment(pod, "secretKeyRef", "secretRef")).chain(mounted);
    all.filter(|name| !name.is_empty())
}

/// ConfigMaps that the pod names.
pub fn config_maps(pod: &Value) -> impl Iterator<Item = &str> {
    let mounted = volumes(pod).flat_map(|volume| {
        let own = std::iter::once(text(&volume["configMap"], "name"));
        own.chain(projected(volume, "configMap"))
    });
    let all = in_environment(pod, "configMapKeyRef", "configMapRef").chain(mounted);
    all.filter(|name| !name.is_empty())
}

/// Volume claims of the pod, those included that are made for it.
pub fn claims(pod: &Value) -> impl Iterator<Item = String> {
    let pod_name = text(&pod["metadata"], "name");
    volumes(pod).filter_map(move |volume| {
        let claim = text(&volume["persistentVolumeClaim"], "claimName");
        if !claim.is_empty() {
            return Some(claim.to_owned());
        }
        is_set(volume, "ephemeral").then(|| format!("{pod_name}-{}", text(volume, "name")))
    })
}

/// Resource claims of the pod: named by it, or made for it as its status says.
pub fn resource_claims(pod: &Value) -> impl Iterator<Item = &str> {
    let made = |name: &str| {
        let statuses = items(&pod["status"], "resourceClaimStatuses");
        statuses.filter(|s| s["name"] == name).map(|s| text(s, "resourceClaimName")).next()
    };
    let named = items(&pod["spec"], "resourceClaims").filter_map(move |claim| {
        match text(claim, "resourceClaimName") {
            "" => made(text(claim, "name")),
            name => Some(name),
        }
    });
    let extended = text(&pod["status"]["extendedResourceClaimStatus"], "resourceClaimName");
    named.chain(std::iter::once(extended)).filter(|name| !name.is_empty())
}

/// Secrets of a volume that kubelets need, with their namespaces.
pub fn secrets_of_volume(volume: &Value) -> Vec<(&str, &str)> {
    let spec = &volume["spec"];
    let home = text(&spec["claimRef"], "namespace");
    let mut found = Vec::new();
    let azure = &spec["azureFile"];
    let azure_home = match text(azure, "secretNamespace") {
        "" => home,
        own => own,
    };
    found.push((azure_home, text(azure, "secretName")));
    for kind in SECRET_REFS {
        let reference = &spec[kind]["secretRef"];
        let namespace = match text(reference, "namespace") {
            "" if !PLACED.contains(&kind) => home,
            own => own,
        };
        found.push((namespace, text(reference, "name")));
    }
    for kind in ["nodePublishSecretRef", "nodeStageSecretRef", "nodeExpandSecretRef"] {
        let reference = &spec["csi"][kind];
        found.push((text(reference, "namespace"), text(reference, "name")));
    }
    found.retain(|(namespace, name)| !namespace.is_empty() && !name.is_empty());
    found
}

/// The first object of the API that a pod names, as refusals call it. A source that is not known is
/// an error: nobody can say whether it names one.
pub fn of_api(pod: &Value) -> Result<Option<&'static str>, String> {
    if !text(&pod["spec"], "serviceAccountName").is_empty() {
        return Ok(Some("serviceaccounts"));
    }
    if secrets(pod).next().is_some() {
        return Ok(Some("secrets"));
    }
    if config_maps(pod).next().is_some() {
        return Ok(Some("configmaps"));
    }
    if items(&pod["spec"], "resourceClaims").next().is_some() {
        return Ok(Some("resourceclaims"));
    }
    for volume in volumes(pod) {
        if let Some(found) = of_volume(volume)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn of_volume(volume: &Value) -> Result<Option<&'static str>, String> {
    if FREE.iter().any(|kind| is_set(volume, kind)) {
        return Ok(None);
    }
    if let Some((_, found)) = BOUND.iter().find(|(kind, _)| is_set(volume, kind)) {
        return Ok(Some(found));
    }
    let name = text(volume, "name");
    if !is_set(volume, "projected") {
        return Err(format!("unknown volume type for volume  {name:?}"));
    }
    for source in items(&volume["projected"], "sources") {
        match PROJECTED.iter().find(|(kind, _)| is_set(source, kind)) {
            Some((_, Some(found))) => return Ok(Some(found)),
            Some((_, None)) => {}
            None => return Err(format!("unknown source for projected volume {name:?}")),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn everything_a_pod_names_is_found() {
        let pod = json!({
            "metadata": {"name": "p"},
            "spec": {
                "imagePullSecrets": [{"name": "pull"}],
                "containers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "key"}}},
                    {"valueFrom": {"configMapKeyRef": {"name": "map-key"}}}, {"value": "x"}]}],
                "initContainers": [{"envFrom": [{"secretRef": {"name": "whole"}}]}],
                "ephemeralContainers": [{"envFrom": [{"configMapRef": {"name": "map"}}]}],
                "volumes": [
                    {"name": "a", "secret": {"secretName": "mounted"}},
                    {"name": "b", "projected": {"sources": [{"secret": {"name": "projected"}},
                        {"configMap": {"name": "map-projected"}}]}},
                    {"name": "c", "csi": {"nodePublishSecretRef": {"name": "csi"}}},
                    {"name": "d", "rbd": {"secretRef": {"name": "rbd"}}},
                    {"name": "e", "azureFile": {"secretName": "azure"}},
                    {"name": "f", "configMap": {"name": "map-mounted"}},
                    {"name": "g", "persistentVolumeClaim": {"claimName": "claim"}},
                    {"name": "h", "ephemeral": {"volumeClaimTemplate": {}}},
                ],
                "resourceClaims": [{"name": "r", "resourceClaimName": "given"},
                    {"name": "s", "resourceClaimTemplateName": "t"}],
            },
            "status": {"resourceClaimStatuses": [{"name": "s", "resourceClaimName": "made"}]},
        });
        let mut found: Vec<&str> = secrets(&pod).collect();
        found.sort_unstable();
        let wanted = ["azure", "csi", "key", "mounted", "projected", "pull", "rbd", "whole"];
        assert_eq!(found, wanted);
        let mut found: Vec<&str> = config_maps(&pod).collect();
        found.sort_unstable();
        assert_eq!(found, ["map", "map-key", "map-mounted", "map-projected"]);
        assert_eq!(claims(&pod).collect::<Vec<_>>(), ["claim", "p-h"]);
        assert_eq!(resource_claims(&pod).collect::<Vec<_>>(), ["given", "made"]);
    }

    #[test]
    fn a_volume_names_secrets_beside_its_claim_or_elsewhere() {
        let volume = |source: Value| {
            let mut spec = source;
            spec["claimRef"] = json!({"namespace": "home", "name": "c"});
            json!({"spec": spec})
        };
        let csi = volume(json!({"csi": {"nodeStageSecretRef": {"namespace": "n", "name": "s"},
            "controllerPublishSecretRef": {"namespace": "n", "name": "hidden"}}}));
        assert_eq!(secrets_of_volume(&csi), [("n", "s")]);
        let rbd = volume(json!({"rbd": {"secretRef": {"name": "s"}}}));
        assert_eq!(secrets_of_volume(&rbd), [("home", "s")]);
        let azure = volume(json!({"azureFile": {"secretName": "s", "secretNamespace": "n"}}));
        assert_eq!(secrets_of_volume(&azure), [("n", "s")]);
    }

    #[test]
    fn a_mirror_pod_names_nothing() {
        let with = |volume: Value| of_api(&json!({"spec": {"volumes": [volume]}}));
        assert_eq!(of_api(&json!({"spec": {}})), Ok(None));
        assert_eq!(with(json!({"name": "v", "hostPath": {"path": "/"}})), Ok(None));
        for (source, found) in [
            (json!({"csi": {"driver": "d"}}), "csidrivers (via CSI volumes)"),
            (json!({"persistentVolumeClaim": {"claimName": "c"}}), "persistentvolumeclaims"),
            (
                json!({"projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}),
                "serviceaccounts (via projected volumes)",
            ),
            (
                json!({"projected": {"sources": [{"clusterTrustBundle": {"path": "t"}}]}}),
                "clustertrustbundles",
            ),
        ] {
            assert_eq!(with(source), Ok(Some(found)));
        }
        let new = with(json!({"name": "v", "tomorrow": {}}));
        assert_eq!(new, Err("unknown volume type for volume  \"v\"".into()));
        let projected = with(json!({"name": "v", "projected": {"sources": [{"new": {}}]}}));
        assert_eq!(projected, Err("unknown source for projected volume \"v\"".into()));
    }
}
