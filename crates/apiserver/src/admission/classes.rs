//! Storage and ingress: default classes, growth of claims, and finalizers that keep what is in use.

use api::Status;
use api::quantity::Quantity;
use serde_json::{Value, json};

use crate::call::Call;
use crate::meta;

const STORAGE_DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";
const STORAGE_DEFAULT_BETA: &str = "storageclass.beta.kubernetes.io/is-default-class";
const STORAGE_CLASS_BETA: &str = "volume.beta.kubernetes.io/storage-class";
const INGRESS_DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";
const INGRESS_CLASS_BETA: &str = "kubernetes.io/ingress.class";

/// The newest of the classes that say they are the default; by name among equally new ones.
fn default_class(
    call: &Call<'_>,
    resource: (&str, &str, &str),
    annotations: &[&str],
) -> Option<Value> {
    let collection = call.server.collection_of(resource.0, resource.1, resource.2);
    let page = collection.list("", None, 0, usize::MAX, &|_| true).ok()?;
    let classes = page.objects.iter().map(|o| o.to_value());
    let marked = |class: &Value| {
        annotations.iter().any(|key| class["metadata"]["annotations"][*key] == "true")
    };
    classes.filter(marked).max_by(|a, b| {
        let newer = meta::text(a, "creationTimestamp").cmp(meta::text(b, "creationTimestamp"));
        newer.then_with(|| meta::text(b, "name").cmp(meta::text(a, "name")))
    })
}

pub(super) fn default_storage_class(call: &Call<'_>, claim: &mut Value) {
    let asked = claim["spec"]["storageClassName"].is_string()
        || claim["metadata"]["annotations"][STORAGE_CLASS_BETA].is_string();
    let resource = ("storage.k8s.io", "v1", "storageclasses");
    if let (false, Some(class)) =
        (asked, default_class(call, resource, &[STORAGE_DEFAULT, STORAGE_DEFAULT_BETA]))
    {
        claim["spec"]["storageClassName"] = class["metadata"]["name"].clone();
    }
}

pub(super) fn default_ingress_class(call: &Call<'_>, ingress: &mut Value) {
    let asked = ingress["spec"]["ingressClassName"].is_string()
        || ingress["metadata"]["annotations"][INGRESS_CLASS_BETA].is_string();
    let resource = ("networking.k8s.io", "v1", "ingressclasses");
    if let (false, Some(class)) = (asked, default_class(call, resource, &[INGRESS_DEFAULT])) {
        ingress["spec"]["ingressClassName"] = class["metadata"]["name"].clone();
    }
}

/// StorageObjectInUseProtection: the protection controllers take these off when nothing uses the
/// object any more.
pub(super) fn protect(object: &mut Value, finalizer: &str) {
    let finalizers = meta::of(object).entry("finalizers").or_insert_with(|| json!([]));
    if let Some(list) = finalizers.as_array_mut().filter(|l| !l.contains(&finalizer.into())) {
        list.push(finalizer.into());
    }
}

/// PersistentVolumeClaimResize: only bound claims of a class that allows it may grow.
pub(super) fn check_growth(call: &Call<'_>, old: &Value, new: &Value) -> Result<(), Status> {
    let size = |claim: &Value| {
        let text = claim["spec"]["resources"]["requests"]["storage"].as_str()?.to_owned();
        Quantity::parse(&text).ok()
    };
    let grows = matches!((size(old), size(new)), (Some(old), Some(new)) if new > old);
    if !grows {
        return Ok(());
    }
    let refused = |why: &str| {
        Err(Status::forbidden("", "persistentvolumeclaims", meta::text(new, "name"), why))
    };
    if old["status"]["phase"] != "Bound" {
        return refused("Only bound persistent volume claims can be expanded");
    }
    let class = |claim: &Value| claim["spec"]["storageClassName"].as_str().unwrap_or("").to_owned();
    let found = call.read(("storage.k8s.io", "v1", "storageclasses"), &class(new));
    let allows = class(old) == class(new)
        && found.is_some_and(|class| class["allowVolumeExpansion"] == true);
    if !allows {
        return refused(
            "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
        );
    }
    Ok(())
}
