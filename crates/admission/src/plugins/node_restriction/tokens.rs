//! Tokens: a node asks for those of the accounts of pods bound to it, bound to these pods and for
//! the audiences these pods name.

use auth::Attributes;
use serde_json::Value;
use validation::items;

use super::{Asked, Judgement, Operation, Refusal, forbid};

/// Drivers that stand in for volume sources of the tree's own.
const MIGRATED: [(&str, &str); 7] = [
    ("awsElasticBlockStore", "ebs.csi.aws.com"),
    ("azureDisk", "disk.csi.azure.com"),
    ("azureFile", "file.csi.azure.com"),
    ("cinder", "cinder.csi.openstack.org"),
    ("gcePersistentDisk", "pd.csi.storage.gke.io"),
    ("portworxVolume", "pxd.portworx.com"),
    ("vsphereVolume", "csi.vsphere.vmware.com"),
];

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or("")
}

pub(super) fn judge(asked: &Asked<'_>, subresource: &str) -> Judgement {
    if asked.operation != Operation::Create || subresource != "token" {
        return Ok(());
    }
    let bound = &asked.object["spec"]["boundObjectRef"];
    let name = text(bound, "name");
    if text(bound, "apiVersion") != "v1" || text(bound, "kind") != "Pod" || name.is_empty() {
        return forbid("node requested token not bound to a pod");
    }
    let uid = text(bound, "uid");
    if uid.is_empty() {
        return forbid("node requested token with a pod binding without a uid");
    }
    let pod = asked.pod(name)?;
    if pod["metadata"]["uid"] != uid {
        return forbid(format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
        ));
    }
    if pod["spec"]["nodeName"] != asked.node {
        return forbid("node requested token bound to a pod scheduled on a different node");
    }
    audience(asked, &pod).map_err(Refusal::Forbidden)
}

fn audience(asked: &Asked<'_>, pod: &Value) -> Result<(), String> {
    let all: Vec<&str> =
        items(&asked.object["spec"], "audiences").filter_map(Value::as_str).collect();
    let audience = match all.as_slice() {
        [] => "",
        [one] => *one,
        _ => return Err("node may only request 0 or 1 audiences".into()),
    };
    let named = names_audience(asked, pod, audience)
        .map_err(|why| format!("error validating audience {audience:?}: {why}"))?;
    let right = Attributes {
        verb: "request-serviceaccounts-token-audience",
        resource: audience,
        namespace: asked.namespace,
        name: asked.name,
        ..Attributes::default()
    };
    if named || asked.cluster.allows(&right) {
        return Ok(());
    }
    Err(format!(
        "audience {audience:?} not found in pod spec volume, {} is not authorized to request tokens for this audience",
        asked.user.name
    ))
}

/// Whether a volume of the pod needs tokens for this audience.
fn names_audience(asked: &Asked<'_>, pod: &Value, audience: &str) -> Result<bool, String> {
    let mut errors = Vec::new();
    for volume in items(&pod["spec"], "volumes") {
        let mut tokens = items(&volume["projected"], "sources")
            .map(|source| &source["serviceAccountToken"])
            .filter(|token| token.is_object());
        if tokens.any(|token| text(token, "audience") == audience) {
            return Ok(true);
        }
        match driver(asked, pod, volume) {
            Ok(None) => {}
            Ok(Some(driver)) => match driver_asks(asked, &driver, audience) {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                Err(why) => errors.push(why),
            },
            Err(why) => errors.push(why),
        }
    }
    match errors.as_slice() {
        [] => Ok(false),
        [one] => Err(one.clone()),
        more => Err(format!("[{}]", more.join(", "))),
    }
}

/// The CSI driver behind a volume.
fn driver(asked: &Asked<'_>, pod: &Value, volume: &Value) -> Result<Option<String>, String> {
    if volume["ephemeral"]["volumeClaimTemplate"].is_object() {
        let claim = format!("{}-{}", text(&pod["metadata"], "name"), text(volume, "name"));
        return driver_of_claim(asked, &claim);
    }
    match text(&volume["persistentVolumeClaim"], "claimName") {
        "" => {}
        claim => return driver_of_claim(asked, claim),
    }
    Ok(match text(&volume["csi"], "driver") {
        "" => migrated(volume),
        driver => Some(driver.to_owned()),
    })
}

fn migrated(source: &Value) -> Option<String> {
    let found = MIGRATED.iter().find(|(kind, _)| source[*kind].is_object());
    found.map(|(_, driver)| (*driver).to_owned())
}

fn driver_of_claim(asked: &Asked<'_>, claim: &str) -> Result<Option<String>, String> {
    let missing = |kind: &str, name: &str| format!("{kind} {name:?} not found");
    let key = format!("{}/{claim}", asked.namespace);
    let found = asked.cluster.object(("", "v1", "persistentvolumeclaims"), &key);
    let found = found.ok_or_else(|| missing("persistentvolumeclaim", claim))?;
    let name = text(&found["spec"], "volumeName");
    let volume = asked.cluster.object(("", "v1", "persistentvolumes"), name);
    let volume = volume.ok_or_else(|| missing("persistentvolume", name))?;
    Ok(match text(&volume["spec"]["csi"], "driver") {
        "" => migrated(&volume["spec"]),
        driver => Some(driver.to_owned()),
    })
}

fn driver_asks(asked: &Asked<'_>, driver: &str, audience: &str) -> Result<bool, String> {
    let found = asked.cluster.object(("storage.k8s.io", "v1", "csidrivers"), driver);
    let found = found.ok_or_else(|| format!("csidriver.storage.k8s.io {driver:?} not found"))?;
    let mut requests = items(&found["spec"], "tokenRequests");
    Ok(requests.any(|request| text(request, "audience") == audience))
}
