//! CSI drivers, and what they registered on nodes.

use std::collections::HashSet;

use api::names;
use serde_json::Value;

use crate::check::At;
use crate::golang;
use crate::shared::csi_driver_name;
use crate::{Kind, PLAIN};

pub(crate) static DRIVER: Kind = Kind {
    create: |driver| spec(&driver.get("spec")),
    update: |driver| {
        let at = driver.get("spec");
        spec(&at);
        // Upstream misspells the first.
        let attach = at.get_as("attachRequired", "attachedRequired");
        attach.immutable();
        at.get("volumeLifecycleModes").immutable();
    },
    ..PLAIN
};
pub(crate) static NODE: Kind = Kind { create: node, update: node_change, again: true, ..PLAIN };

fn spec(spec: &At<'_>) {
    spec.get_as("attachRequired", "attachedRequired").need_present();
    spec.get("podInfoOnMount").need_present();
    spec.get("storageCapacity").need_present();
    spec.get("fsGroupPolicy").one_of_if_set(&["File", "None", "ReadWriteOnceWithFSType"]);
    let requests = spec.get("tokenRequests");
    token_requests(&requests);
    let modes = spec.get("volumeLifecycleModes");
    for mode in modes.items().filter(|m| !matches!(m.text(), "Persistent" | "Ephemeral")) {
        modes.not_supported_as(mode.value(), &["Persistent", "Ephemeral"]);
    }
    spec.get("seLinuxMount").need_present();
    let period = spec.get("nodeAllocatableUpdatePeriodSeconds");
    if period.int().is_some_and(|seconds| seconds < 10) {
        period.invalid("must be greater than or equal to 10 seconds");
    }
    let secrets = spec.get("serviceAccountTokenInSecrets");
    if !secrets.is_absent() && requests.is_empty() {
        secrets.invalid("serviceAccountTokenInSecrets is set but no tokenRequests are specified");
    }
}

fn token_requests(list: &At<'_>) {
    let mut seen: HashSet<String> = HashSet::new();
    for request in list.items() {
        let (audience, expiration) = (request.get("audience"), request.get("expirationSeconds"));
        if seen.contains(audience.text()) {
            audience.duplicate_as(&audience.text().into());
            continue;
        }
        seen.insert(audience.text().to_owned());
        let Some(seconds) = expiration.int() else { continue };
        if seconds < 600 {
            expiration.invalid("may not specify a duration less than 10 minutes");
        }
        if seconds > 1 << 32 {
            expiration.invalid("may not specify a duration larger than 2^32 seconds");
        }
    }
}

fn node(node: &At<'_>) {
    let spec = node.get("spec");
    let mut seen: HashSet<String> = HashSet::new();
    for driver in spec.get("drivers").items() {
        let (name, id) = (driver.get("name"), driver.get("nodeID"));
        csi_driver_name(&name);
        id.need();
        if id.text().len() > 256 {
            id.invalid("must be 256 characters or less");
        }
        let allocatable = driver.get("allocatable");
        allocatable.get("count").non_negative();
        if seen.contains(name.text()) {
            name.duplicate_as(&name.text().into());
        }
        seen.insert(name.text().to_owned());
        topology_keys(&driver);
    }
}

/// Upstream places faults of keys at the driver.
fn topology_keys(driver: &At<'_>) {
    let keys = crate::shared::texts(driver.value().get("topologyKeys"), None);
    for (at, key) in keys.iter().enumerate() {
        if key.is_empty() {
            driver.required("");
        }
        if keys[..at].contains(key) {
            driver.duplicate_as(&(*key).into());
        }
        for fault in names::qualified_name(key) {
            driver.invalid_as(&(*key).into(), &fault);
        }
    }
}

fn node_change(object: &At<'_>) {
    node(object);
    let spec = object.get("spec");
    let drivers = spec.get("drivers");
    let before = drivers.old().and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let fixed = |driver: &Value| {
        let mut driver = driver.clone();
        driver.as_object_mut().map(|d| d.remove("allocatable"));
        driver
    };
    for old in before {
        let now = drivers.value().as_array().into_iter().flatten();
        for new in now.filter(|d| d["name"] == old["name"]).map(fixed) {
            if !golang::same(&new, &fixed(old)) {
                drivers.with(&new).invalid_struct("storage.CSINodeDriver", "field is immutable");
            }
        }
    }
}
