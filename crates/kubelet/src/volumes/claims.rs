//! From a pod's claim to the PersistentVolume that is bound to it. The kubelet waits until it is there;
//! why it is not yet, the errors say with upstream's texts.

use std::sync::Arc;

use client::{Client, Resource};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, Volume};

use super::spec::{Persistent, Spec, uses};
use crate::spec::{name_of, namespace_of, uid_of};

/// A claim with it lives as long as a pod uses it.
const PROTECTED: &str = "kubernetes.io/pvc-protection";

/// The claim of a pod's volume, and whether it is the pod's own (a generic ephemeral volume).
fn claim_of(pod: &Pod, volume: &Volume) -> Option<(String, bool, bool)> {
    if let Some(source) = &volume.persistent_volume_claim {
        return Some((source.claim_name.clone(), source.read_only.unwrap_or(false), false));
    }
    volume.ephemeral.as_ref()?;
    Some((format!("{}-{}", name_of(pod), volume.name), false, true))
}

/// The volume as its plugin sees it.
pub(super) async fn resolve(client: &Client, pod: &Pod, volume: &Volume) -> Result<Spec, String> {
    let Some((name, read_only, own)) = claim_of(pod, volume) else {
        return Ok(Spec { volume: volume.clone(), persistent: None });
    };
    let namespace = namespace_of(pod);
    let failed = |why: String| format!("error processing PVC {namespace}/{name}: {why}");
    let claim: PersistentVolumeClaim = get(client, namespace, &name)
        .await
        .map_err(|e| failed(format!("failed to fetch PVC from API server: {e}")))?;
    let bound = bound_to(&claim).map_err(|why| failed(why.into()))?.to_owned();
    if own {
        is_for(pod, &claim)?;
    }
    let found: PersistentVolume = get(client, "", &bound)
        .await
        .map_err(|e| failed(format!("failed to fetch PV {bound} from API server: {e}")))?;
    points_back(&found, &claim).map_err(failed)?;
    let persistent = Persistent { volume: Arc::new(found), claim: Arc::new(claim), read_only };
    let spec = Spec { volume: volume.clone(), persistent: Some(persistent) };
    mode_fits(pod, &spec)?;
    Ok(spec)
}

async fn get<K: Resource>(
    client: &Client,
    namespace: &str,
    name: &str,
) -> Result<K, client::Error> {
    client.get::<K>(namespace, name).await
}

/// The PersistentVolume's name.
fn bound_to(claim: &PersistentVolumeClaim) -> Result<&str, &'static str> {
    let kept = claim.metadata.finalizers.iter().flatten().any(|f| f == PROTECTED);
    if claim.metadata.deletion_timestamp.is_some() && !kept {
        return Err("PVC is being deleted");
    }
    if claim.status.as_ref().and_then(|s| s.phase.as_deref()) != Some("Bound") {
        return Err("PVC is not bound");
    }
    let name = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref());
    name.filter(|n| !n.is_empty()).ok_or("PVC has empty pvc.Spec.VolumeName")
}

/// A claim that somebody else made under the name is not taken for the pod's.
fn is_for(pod: &Pod, claim: &PersistentVolumeClaim) -> Result<(), String> {
    let mut owners = claim.metadata.owner_references.iter().flatten();
    if owners.any(|o| o.controller == Some(true) && o.uid == uid_of(pod)) {
        return Ok(());
    }
    let (namespace, pod) = (namespace_of(pod), name_of(pod));
    let claim = claim.metadata.name.as_deref().unwrap_or("");
    Err(format!(
        "PVC {namespace}/{claim} was not created for pod {namespace}/{pod} (pod is not owner)"
    ))
}

fn points_back(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Result<(), String> {
    let name = volume.metadata.name.as_deref().unwrap_or("");
    let Some(reference) = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref()) else {
        return Err(format!(
            "found PV object {name} but it has a nil pv.Spec.ClaimRef indicating it is not yet bound to the claim"
        ));
    };
    let (theirs, own) = (reference.uid.as_deref().unwrap_or(""), claim.metadata.uid.as_deref());
    if Some(theirs) == own {
        return Ok(());
    }
    Err(format!(
        "found PV object {name} but its pv.Spec.ClaimRef.UID {theirs} does not point to claim.UID {}",
        own.unwrap_or("")
    ))
}

fn mode_fits(pod: &Pod, spec: &Spec) -> Result<(), String> {
    let (mounted, device) = uses(pod, &spec.volume.name);
    let name = &spec.volume.name;
    match spec.is_block() {
        true if mounted => {
            Err(format!("volume {name} has volumeMode Block, but is specified in volumeMounts"))
        }
        false if device => Err(format!(
            "volume {name} has volumeMode Filesystem, but is specified in volumeDevices"
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn claim(metadata: Value, status: Value, spec: Value) -> PersistentVolumeClaim {
        serde_json::from_value(json!({"metadata": metadata, "spec": spec, "status": status}))
            .unwrap()
    }

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u"},
            "spec": {"volumes": [{"name": "own", "ephemeral": {}}], "containers": [
                {"name": "c", "volumeMounts": [{"name": "fs", "mountPath": "/fs"}],
                 "volumeDevices": [{"name": "raw", "devicePath": "/dev/x"}]}]},
        }))
        .unwrap()
    }

    #[test]
    fn a_claim_must_be_bound_and_stay() {
        let bound = json!({"phase": "Bound"});
        let to = |name: &str| json!({"volumeName": name});
        assert_eq!(bound_to(&claim(json!({}), bound.clone(), to("pv"))), Ok("pv"));
        let pending = claim(json!({}), json!({"phase": "Pending"}), to("pv"));
        assert_eq!(bound_to(&pending), Err("PVC is not bound"));
        let empty = claim(json!({}), bound.clone(), json!({}));
        assert_eq!(bound_to(&empty), Err("PVC has empty pvc.Spec.VolumeName"));
        let going = |finalizers: Value| {
            let at = "2026-01-01T00:00:00Z";
            let meta = json!({"deletionTimestamp": at, "finalizers": finalizers});
            claim(meta, bound.clone(), to("pv"))
        };
        assert_eq!(bound_to(&going(json!([]))), Err("PVC is being deleted"));
        assert_eq!(bound_to(&going(json!([PROTECTED]))), Ok("pv"));
    }

    #[test]
    fn a_volume_that_belongs_to_another_claim_is_refused() {
        let own = claim(json!({"uid": "1"}), json!({}), json!({}));
        let volume = |spec: Value| -> PersistentVolume {
            serde_json::from_value(json!({"metadata": {"name": "pv"}, "spec": spec})).unwrap()
        };
        assert_eq!(points_back(&volume(json!({"claimRef": {"uid": "1"}})), &own), Ok(()));
        assert_eq!(
            points_back(&volume(json!({"claimRef": {"uid": "2"}})), &own).unwrap_err(),
            "found PV object pv but its pv.Spec.ClaimRef.UID 2 does not point to claim.UID 1"
        );
        assert_eq!(
            points_back(&volume(json!({})), &own).unwrap_err(),
            "found PV object pv but it has a nil pv.Spec.ClaimRef indicating it is not yet bound to the claim"
        );
    }

    #[test]
    fn a_claim_of_a_generic_ephemeral_volume_is_the_pods_own() {
        let pod = pod();
        let volume = &pod.spec.clone().unwrap().volumes.unwrap()[0];
        assert_eq!(claim_of(&pod, volume), Some(("p-own".into(), false, true)));
        let owner = |uid: &str| json!([{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid, "controller": true}]);
        let of = |uid: &str| {
            claim(json!({"name": "p-own", "ownerReferences": owner(uid)}), json!({}), json!({}))
        };
        assert_eq!(is_for(&pod, &of("u")), Ok(()));
        assert_eq!(
            is_for(&pod, &of("other")).unwrap_err(),
            "PVC ns/p-own was not created for pod ns/p (pod is not owner)"
        );
    }

    #[test]
    fn the_mode_must_be_the_one_that_containers_ask_for() {
        let spec = |name: &str, mode: &str| Spec {
            volume: serde_json::from_value(json!({"name": name})).unwrap(),
            persistent: Some(Persistent {
                volume: Arc::new(
                    serde_json::from_value(json!({"metadata": {}, "spec": {"volumeMode": mode}}))
                        .unwrap(),
                ),
                claim: Arc::default(),
                read_only: false,
            }),
        };
        assert_eq!(mode_fits(&pod(), &spec("fs", "Filesystem")), Ok(()));
        assert_eq!(mode_fits(&pod(), &spec("raw", "Block")), Ok(()));
        assert_eq!(
            mode_fits(&pod(), &spec("fs", "Block")).unwrap_err(),
            "volume fs has volumeMode Block, but is specified in volumeMounts"
        );
        assert_eq!(
            mode_fits(&pod(), &spec("raw", "Filesystem")).unwrap_err(),
            "volume raw has volumeMode Filesystem, but is specified in volumeDevices"
        );
    }
}
