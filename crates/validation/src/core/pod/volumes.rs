//! A pod's volumes: exactly one source each, names that differ.

use std::collections::{HashMap, HashSet};

use api::names;
use serde_json::Value;

use super::Pod;
use super::projected::{downward_api, projected};
use super::sources::*;
use crate::check::At;
use crate::core::claim;

type Source = (&'static str, &'static str, &'static str, fn(&At<'_>, &Pod<'_>));

/// Field, its name in a fault of two sources, its name in faults of its own, and its rules. The
/// order is upstream's: the first one there counts.
static SOURCES: [Source; 29] = [
    ("emptyDir", "emptyDir", "emptyDir", |v, _| empty_dir(v)),
    ("hostPath", "hostPath", "hostPath", |v, _| host_path(v)),
    ("gitRepo", "gitRepo", "gitRepo", |v, _| git_repo(v)),
    ("gcePersistentDisk", "gcePersistentDisk", "persistentDisk", |v, _| gce_disk(v)),
    ("awsElasticBlockStore", "awsElasticBlockStore", "awsElasticBlockStore", |v, _| aws_disk(v)),
    ("secret", "secret", "secret", |v, _| keyed(v, "secretName")),
    ("nfs", "nfs", "nfs", |v, _| nfs(v)),
    ("iscsi", "iscsi", "iscsi", |v, _| iscsi(v, true)),
    ("glusterfs", "glusterfs", "glusterfs", |v, _| needs(v, &["endpoints", "path"])),
    ("flocker", "flocker", "flocker", |v, _| flocker(v)),
    ("persistentVolumeClaim", "persistentVolumeClaim", "persistentVolumeClaim", |v, _| {
        needs(v, &["claimName"]);
    }),
    ("rbd", "rbd", "rbd", |v, _| needs(v, &["monitors", "image"])),
    ("cinder", "cinder", "cinder", |v, _| cinder(v, false)),
    ("cephfs", "cephFS", "cephfs", |v, _| needs(v, &["monitors"])),
    ("quobyte", "quobyte", "quobyte", |v, _| quobyte(v)),
    ("downwardAPI", "downwarAPI", "downwardAPI", |v, _| downward_api(v)),
    ("fc", "fc", "fc", |v, _| fibre_channel(v)),
    ("flexVolume", "flexVolume", "flexVolume", |v, _| flex(v)),
    ("configMap", "configMap", "configMap", |v, _| keyed(v, "name")),
    ("azureFile", "azureFile", "azureFile", |v, _| needs(v, &["secretName", "shareName"])),
    ("vsphereVolume", "vsphereVolume", "vsphereVolume", |v, _| needs(v, &["volumePath"])),
    ("photonPersistentDisk", "photonPersistentDisk", "photonPersistentDisk", |v, _| {
        needs(v, &["pdID"]);
    }),
    ("portworxVolume", "portworxVolume", "portworxVolume", |v, _| needs(v, &["volumeID"])),
    ("azureDisk", "azureDisk", "azureDisk", |v, _| azure_disk(v)),
    ("storageos", "storageos", "storageos", |v, _| storageos(v, false)),
    ("projected", "projected", "projected", |v, _| projected(v)),
    ("scaleIO", "scaleIO", "scaleIO", |v, _| needs(v, &["gateway", "system", "volumeName"])),
    ("csi", "csi", "csi", |v, _| csi_inline(v)),
    ("ephemeral", "ephemeral", "ephemeral", |v, _| ephemeral(v)),
];

/// Checks all volumes; those without fault are what containers may mount.
pub(super) fn volumes<'a>(list: &At<'a>, pod: &Pod<'_>) -> HashMap<&'a str, &'a Value> {
    let created = claims_created(list.value(), pod.name);
    let mut sound: HashMap<&str, &Value> = HashMap::new();
    let values = list.value().as_array().map_or(&[][..], Vec::as_slice);
    for (at, value) in values.iter().enumerate() {
        let volume = list.index(at);
        let name = value["name"].as_str().unwrap_or("");
        let ok = list.sound(|| {
            source(&volume, pod);
            let at = volume.get("name");
            if at.need() {
                at.named(names::dns_label);
            }
            if sound.contains_key(name) {
                at.duplicate();
            }
        });
        if ok {
            sound.insert(name, value);
        }
        let claim = volume.get("persistentVolumeClaim");
        let claim = claim.get("claimName");
        if created.contains(claim.text()) {
            claim.invalid("must not reference a PVC that gets created for an ephemeral volume");
        }
    }
    sound
}

fn claims_created(list: &Value, pod: &str) -> HashSet<String> {
    let volumes = list.as_array().into_iter().flatten().filter(|_| !pod.is_empty());
    let made = volumes.filter(|v| v["ephemeral"].is_object());
    made.map(|v| format!("{pod}-{}", v["name"].as_str().unwrap_or(""))).collect()
}

fn source(volume: &At<'_>, pod: &Pod<'_>) {
    let mut found = false;
    for (field, as_second, shown, rules) in &SOURCES {
        if volume.value()[*field].is_null() {
            continue;
        }
        if found {
            volume.get_as(field, as_second).forbidden("may not specify more than 1 volume type");
        } else {
            rules(&volume.get_as(field, shown), pod);
            if *field == "ephemeral" {
                ephemeral_name(volume, pod);
            }
        }
        if *field == "iscsi" {
            iscsi_length(volume);
        }
        found = true;
    }
    let image = volume.get("image");
    if !image.is_absent() {
        if found {
            image.forbidden("may not specify more than 1 volume type");
        } else {
            image_source(&image, pod);
        }
        found = true;
    }
    if !found {
        volume.required("must specify a volume type");
    }
}

fn iscsi_length(volume: &At<'_>) {
    let iscsi = &volume.value()["iscsi"];
    let portal = iscsi["targetPortal"].as_str().unwrap_or("");
    let name = volume.get("name");
    if !iscsi["initiatorName"].is_null() && name.text().len() + 1 + portal.len() > 64 {
        name.invalid("Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.");
    }
}

fn ephemeral(source: &At<'_>) {
    let template = source.get("volumeClaimTemplate");
    if template.is_absent() {
        return template.required("");
    }
    let meta = template.get("metadata");
    claim::template_meta(&meta);
    claim::spec(&template.get("spec"), claim::Rules::default());
}

fn ephemeral_name(volume: &At<'_>, pod: &Pod<'_>) {
    let name = volume.get("name");
    if pod.name.is_empty() || name.text().is_empty() {
        return;
    }
    let claim = format!("{}-{}", pod.name, name.text());
    for fault in names::dns_subdomain(&claim) {
        volume
            .get("ephemeral")
            .get("name")
            .invalid_as(name.value(), &format!("PVC name {claim:?}: {fault}"));
    }
}

fn image_source(image: &At<'_>, pod: &Pod<'_>) {
    if pod.is_pod {
        image.get("reference").need();
    }
    image.get("pullPolicy").need_one_of(&["Always", "IfNotPresent", "Never"]);
}
