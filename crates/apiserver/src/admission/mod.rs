//! Built-in admission: what happens to a request between decoding and storing.
//!
//! First the object is changed, then, when it is complete and valid, it is checked; the order within
//! each is upstream's. Decisions that need nothing but objects are in the crate `admission`.

mod accounts;
pub(crate) mod certificates;
mod classes;
mod limits;
pub(crate) mod node;
mod pods;
mod quota;
mod rbac;
mod security;

use api::Status;
use serde_json::Value;

pub(crate) use self::quota::Queues as QuotaQueues;
use crate::call::Call;
use crate::meta;

/// Changes to a new object, and refusals that come before it is looked at.
pub(crate) fn create(call: &Call<'_>, object: &mut Value) -> Result<(), Status> {
    namespace_lifecycle(call)?;
    node::restrict(call, node::Operation::Create, ("", &Value::Null, object))?;
    rbac::check(call, &Value::Null, object)?;
    match (call.row.group, call.row.name, call.row.subresource) {
        ("", "pods", "") => {
            limits::default_pod(call, object);
            pods::service_account(call, object)?;
            pods::priority(call, object)?;
            pods::default_tolerations(object);
            pods::runtime_class(call, object)?;
        }
        ("", "persistentvolumeclaims", "") => {
            classes::default_storage_class(call, object);
            classes::protect(object, "kubernetes.io/pvc-protection");
        }
        ("", "persistentvolumes", "") => classes::protect(object, "kubernetes.io/pv-protection"),
        ("storage.k8s.io", "volumeattributesclasses", "") => {
            classes::protect(object, "kubernetes.io/vac-protection");
        }
        ("networking.k8s.io", "ingresses", "") => classes::default_ingress_class(call, object),
        _ => {}
    }
    Ok(())
}

/// Refusals of a new object that is complete and valid.
pub(crate) async fn check_create(call: &Call<'_>, object: &Value) -> Result<(), Status> {
    match (call.row.group, call.row.name, call.row.subresource) {
        ("", "pods", "") => {
            limits::check(call, object)?;
            security::check_pod(call, object)
        }
        ("", "persistentvolumeclaims", "") => limits::check(call, object),
        ("", "namespaces", "") => security::check_namespace(call, None, object),
        ("certificates.k8s.io", "certificatesigningrequests", "") => {
            certificates::check_subject(object)
        }
        (_, _, "") => security::check_pod(call, object),
        _ => Ok(()),
    }?;
    // Last: nobody else's refusal shall cost anything.
    quota::charge(call, None, object).await
}

/// Refusals that come before parts of a change are put back because its path does not write them.
pub(crate) fn sent(call: &Call<'_>, old: &Value, new: &Value) -> Result<(), Status> {
    node::restrict(call, node::Operation::Update, (&call.info.name, old, new))
}

/// Refusals of a deletion.
pub(crate) fn delete(call: &Call<'_>, name: &str, old: &Value) -> Result<(), Status> {
    node::restrict(call, node::Operation::Delete, (name, old, &Value::Null))
}

pub(crate) fn update(call: &Call<'_>, old: &Value, new: &mut Value) -> Result<(), Status> {
    rbac::check(call, old, new)?;
    if (call.row.group, call.row.name, call.row.subresource) == ("", "pods", "") {
        pods::keep_priority(old, new);
        pods::default_tolerations(new);
    }
    if (call.row.group, call.row.name, call.row.subresource) == ("", "pods", "ephemeralcontainers")
    {
        pods::added_containers(call, new)?;
    }
    Ok(())
}

/// Refusals of a change.
pub(crate) async fn check_update(call: &Call<'_>, old: &Value, new: &Value) -> Result<(), Status> {
    match (call.row.group, call.row.name, call.row.subresource) {
        ("", "pods", "resize") => limits::check(call, new),
        ("", "pods", "" | "ephemeralcontainers") if old["spec"] == new["spec"] => Ok(()),
        ("", "pods", "" | "ephemeralcontainers") => security::check_pod(call, new),
        ("", "pods", _) => Ok(()),
        ("", "persistentvolumeclaims", "") => classes::check_growth(call, old, new),
        ("", "namespaces", "") => security::check_namespace(call, Some(old), new),
        ("certificates.k8s.io", "certificatesigningrequests", _) => {
            certificates::check_rights(call, old, new)
        }
        (_, _, "") if old["spec"] != new["spec"] => security::check_pod(call, new),
        _ => Ok(()),
    }?;
    quota::charge(call, Some(old), new).await
}

/// Nothing is created in a namespace that is absent or on its way out.
fn namespace_lifecycle(call: &Call<'_>) -> Result<(), Status> {
    let row = call.row;
    if !row.namespaced {
        return Ok(());
    }
    let name = call.info.namespace.as_str();
    let namespaces = call.server.collection_of("", "v1", "namespaces");
    let Some(namespace) = namespaces.get(name) else {
        return Err(Status::not_found("", "namespaces", name));
    };
    // A deleted namespace still takes what its finalisation and its observers write.
    let exempt = row.name == "localsubjectaccessreviews";
    if namespace.meta().deletion_timestamp.is_some() && !exempt {
        let why = format!(
            "unable to create new content in namespace {name} because it is being terminated"
        );
        let cause = meta::cause(
            "NamespaceTerminating",
            "metadata.namespace",
            format!("namespace {name} is being terminated"),
        );
        let mut status = Status::forbidden(row.group, row.name, &call.info.name, &why);
        status = status.with_causes(vec![cause]);
        return Err(status);
    }
    Ok(())
}

/// Without everything that says no more than its absence.
fn bare(value: &Value) -> Option<Value> {
    match value {
        Value::Null => None,
        Value::String(text) => (!text.is_empty()).then(|| value.clone()),
        Value::Array(list) => {
            let list: Vec<Value> =
                list.iter().map(|item| bare(item).unwrap_or(Value::Null)).collect();
            (!list.is_empty()).then_some(Value::Array(list))
        }
        Value::Object(map) => {
            let set = map.iter().filter_map(|(key, value)| Some((key.clone(), bare(value)?)));
            let map: serde_json::Map<String, Value> = set.collect();
            (!map.is_empty()).then_some(Value::Object(map))
        }
        other => Some(other.clone()),
    }
}
