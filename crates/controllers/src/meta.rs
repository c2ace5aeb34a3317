//! Object metadata as the controllers need it: keys, references, owners, selectors, times.

use std::collections::BTreeMap;

use api::selector::LabelSelector;
use client::{Client, Error, Resource};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    self as meta, ObjectMeta, OwnerReference, Time,
};

/// Namespace and name.
pub(crate) type Key = (String, String);

pub(crate) type Map = BTreeMap<String, String>;

pub(crate) fn key<K: Resource>(object: &K) -> Key {
    let meta = object.metadata();
    (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

pub(crate) fn name(meta: &ObjectMeta) -> &str {
    meta.name.as_deref().unwrap_or("")
}

pub(crate) fn namespace(meta: &ObjectMeta) -> &str {
    meta.namespace.as_deref().unwrap_or("")
}

pub(crate) fn uid(meta: &ObjectMeta) -> &str {
    meta.uid.as_deref().unwrap_or("")
}

/// Whether the server, too, has this very object and has not been asked to end it. Views differ in
/// age: one that already shows dependents let go may be newer than the one that shows their owner,
/// which ends, and to take them in again would end them with it.
pub(crate) async fn may_adopt<K: Resource>(client: &Client, owner: &K) -> Result<bool, Error> {
    let meta = owner.metadata();
    match client.get::<K>(namespace(meta), name(meta)).await {
        Ok(live) => {
            let live = live.metadata();
            Ok(live.uid == meta.uid && live.deletion_timestamp.is_none())
        }
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}

/// What an event about the object refers to.
pub(crate) fn reference<K: Resource>(object: &K) -> ObjectReference {
    let meta = object.metadata();
    ObjectReference {
        api_version: Some(K::API_VERSION.into()),
        kind: Some(K::KIND.into()),
        name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}

/// The managing owner.
pub(crate) fn controller(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|o| o.controller == Some(true))
}

/// A reference that makes `owner` manage what carries it.
pub(crate) fn managed_by<K: Resource>(owner: &K) -> OwnerReference {
    let meta = owner.metadata();
    OwnerReference {
        api_version: K::API_VERSION.into(),
        kind: K::KIND.into(),
        name: name(meta).into(),
        uid: uid(meta).into(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

pub(crate) fn selector(of: &meta::LabelSelector) -> LabelSelector {
    LabelSelector::from_json(&serde_json::to_value(of).expect("a selector always encodes"))
}

pub(crate) fn matches(selector: &LabelSelector, labels: Option<&Map>) -> bool {
    selector.matches_with(|key| labels.and_then(|l| l.get(key)).map(String::as_str))
}

/// Now, in whole seconds, as `Time` fields are.
pub(crate) fn now() -> Time {
    let seconds = jiff::Timestamp::now().as_second();
    Time(jiff::Timestamp::from_second(seconds).expect("now is within jiff's range"))
}

/// Seconds from `earlier` to `later`.
pub(crate) fn seconds_between(earlier: &Time, later: &Time) -> i64 {
    later.0.as_second() - earlier.0.as_second()
}
