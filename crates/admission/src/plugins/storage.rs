//! Storage and ingress: default classes, growth of claims, and finalizers that keep objects in use.
//!
//! Rules: `plugin/pkg/admission/storage` and `network/defaultingressclass`.

use api::quantity::Quantity;
use api::tree::{metadata_mut, metadata_text};
use serde_json::{Value, json};

use crate::attributes::{Attributes, Gvr, Operation};
use crate::plugin::{Decision, Plugin, Verdict};

const STORAGE_CLASSES: Gvr = ("storage.k8s.io", "v1", "storageclasses");
const STORAGE_DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";
const STORAGE_DEFAULT_BETA: &str = "storageclass.beta.kubernetes.io/is-default-class";
const STORAGE_CLASS_BETA: &str = "volume.beta.kubernetes.io/storage-class";
const INGRESS_DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";
const INGRESS_CLASS_BETA: &str = "kubernetes.io/ingress.class";

fn creates(request: &Attributes<'_>, path: (&str, &str, &str)) -> bool {
    request.operation == Operation::Create && request.path() == path
}

/// Claims that name no class get the default one.
pub(super) struct DefaultStorageClass;

impl Plugin for DefaultStorageClass {
    fn name(&self) -> &'static str {
        "DefaultStorageClass"
    }

    fn handles(&self, request: &Attributes<'_>) -> bool {
        creates(request, ("", "persistentvolumeclaims", ""))
    }

    fn mutate<'a>(&'a self, request: &'a Attributes<'a>, claim: &'a mut Value) -> Decision<'a> {
        default_storage_class(request, claim);
        Decision::ALLOWED
    }
}

/// Ingresses that name no class get the default one.
pub(super) struct DefaultIngressClass;

impl Plugin for DefaultIngressClass {
    fn name(&self) -> &'static str {
        "DefaultIngressClass"
    }

    fn handles(&self, request: &Attributes<'_>) -> bool {
        creates(request, ("networking.k8s.io", "ingresses", ""))
    }

    fn mutate<'a>(&'a self, request: &'a Attributes<'a>, ingress: &'a mut Value) -> Decision<'a> {
        default_ingress_class(request, ingress);
        Decision::ALLOWED
    }
}

/// The protection controllers take these finalizers off when nothing uses the object any more.
pub(super) struct StorageObjectInUseProtection;

fn protection(request: &Attributes<'_>) -> Option<&'static str> {
    match request.path() {
        ("", "persistentvolumeclaims", "") => Some("kubernetes.io/pvc-protection"),
        ("", "persistentvolumes", "") => Some("kubernetes.io/pv-protection"),
        ("storage.k8s.io", "volumeattributesclasses", "") => Some("kubernetes.io/vac-protection"),
        _ => None,
    }
}

impl Plugin for StorageObjectInUseProtection {
    fn name(&self) -> &'static str {
        "StorageObjectInUseProtection"
    }

    fn handles(&self, request: &Attributes<'_>) -> bool {
        request.operation == Operation::Create && protection(request).is_some()
    }

    fn mutate<'a>(&'a self, request: &'a Attributes<'a>, object: &'a mut Value) -> Decision<'a> {
        if let Some(finalizer) = protection(request) {
            protect(object, finalizer);
        }
        Decision::ALLOWED
    }
}

/// Claims grow where their class allows it.
pub(super) struct PersistentVolumeClaimResize;

impl Plugin for PersistentVolumeClaimResize {
    fn name(&self) -> &'static str {
        "PersistentVolumeClaimResize"
    }

    fn handles(&self, request: &Attributes<'_>) -> bool {
        request.operation == Operation::Update
            && request.path() == ("", "persistentvolumeclaims", "")
    }

    fn validate<'a>(&'a self, request: &'a Attributes<'a>, claim: &'a Value) -> Decision<'a> {
        request.old.map_or(Ok(()), |old| check_growth(request, old, claim)).into()
    }
}

/// The newest of the classes that say they are the default; by name among equally new ones.
fn default_class(request: &Attributes<'_>, resource: Gvr, annotations: &[&str]) -> Option<Value> {
    let all = request.cluster.list(resource, "");
    let classes = all.iter().map(|class| class.to_value());
    let marked = |class: &Value| {
        annotations.iter().any(|key| class["metadata"]["annotations"][*key] == "true")
    };
    classes.filter(marked).max_by(|a, b| {
        let newer =
            metadata_text(a, "creationTimestamp").cmp(metadata_text(b, "creationTimestamp"));
        newer.then_with(|| metadata_text(b, "name").cmp(metadata_text(a, "name")))
    })
}

fn default_storage_class(request: &Attributes<'_>, claim: &mut Value) {
    let asked = claim["spec"]["storageClassName"].is_string()
        || claim["metadata"]["annotations"][STORAGE_CLASS_BETA].is_string();
    if let (false, Some(class)) =
        (asked, default_class(request, STORAGE_CLASSES, &[STORAGE_DEFAULT, STORAGE_DEFAULT_BETA]))
    {
        claim["spec"]["storageClassName"] = class["metadata"]["name"].clone();
    }
}

fn default_ingress_class(request: &Attributes<'_>, ingress: &mut Value) {
    let asked = ingress["spec"]["ingressClassName"].is_string()
        || ingress["metadata"]["annotations"][INGRESS_CLASS_BETA].is_string();
    let resource = ("networking.k8s.io", "v1", "ingressclasses");
    if let (false, Some(class)) = (asked, default_class(request, resource, &[INGRESS_DEFAULT])) {
        ingress["spec"]["ingressClassName"] = class["metadata"]["name"].clone();
    }
}

fn protect(object: &mut Value, finalizer: &str) {
    let finalizers = metadata_mut(object).entry("finalizers").or_insert_with(|| json!([]));
    if let Some(list) = finalizers.as_array_mut().filter(|l| !l.contains(&finalizer.into())) {
        list.push(finalizer.into());
    }
}

/// Only bound claims of a class that allows it may grow.
fn check_growth(request: &Attributes<'_>, old: &Value, new: &Value) -> Verdict {
    let size = |claim: &Value| {
        let text = claim["spec"]["resources"]["requests"]["storage"].as_str()?.to_owned();
        Quantity::parse(&text).ok()
    };
    let grows = matches!((size(old), size(new)), (Some(old), Some(new)) if new > old);
    if !grows {
        return Ok(());
    }
    let refused = |why: &str| Err(request.forbid(new, why));
    if old["status"]["phase"] != "Bound" {
        return refused("Only bound persistent volume claims can be expanded");
    }
    let class = |claim: &Value| claim["spec"]["storageClassName"].as_str().unwrap_or("").to_owned();
    let found = request.read(STORAGE_CLASSES, &class(new));
    let allows = class(old) == class(new)
        && found.is_some_and(|class| class["allowVolumeExpansion"] == true);
    if !allows {
        return refused(
            "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
        );
    }
    Ok(())
}
