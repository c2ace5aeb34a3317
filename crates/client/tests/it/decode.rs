//! Informers take whatever the API accepts: an object that does not decode would be missing from the
//! view of the one who follows it.
//!
//! `decode.jsonl` has an object of every type that controllers, scheduler, kubelet, proxy and DNS follow,
//! with the forms in which upstream's server stores what was left out.

use std::collections::BTreeSet;

use api::Object;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod,
    ReplicationController, ResourceQuota, Secret, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use serde_json::Value;

/// The types that are followed.
macro_rules! types {
    ($with:ident) => {
        $with!(
            ConfigMap Deployment EndpointSlice Endpoints Lease Namespace Node PersistentVolume
            PersistentVolumeClaim Pod PodDisruptionBudget ReplicaSet ReplicationController
            ResourceQuota Secret Service ServiceAccount StatefulSet VolumeAttributesClass
        )
    };
}

macro_rules! kinds {
    ($($kind:ident)*) => { [$(stringify!($kind)),*] };
}

/// Decodes an object as the informer of its kind does.
fn decode(value: &Value) -> Result<(), String> {
    let object = Object::new(value, 1, &[]);
    macro_rules! by_kind {
        ($($kind:ident)*) => {
            match value["kind"].as_str().unwrap_or("") {
                $(stringify!($kind) => object.decode::<$kind>().map(drop),)*
                other => panic!("{other} is not followed"),
            }
        };
    }
    types!(by_kind).map_err(|e| e.to_string())
}

fn objects() -> Vec<Value> {
    let text = include_str!("decode.jsonl");
    let lines = text.lines().filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_str(line).expect("one object a line")).collect()
}

/// Pointers to everything below a value.
fn places(value: &Value, at: &str, all: &mut Vec<String>) {
    let escaped = |key: &str| key.replace('~', "~0").replace('/', "~1");
    match value {
        Value::Object(map) => {
            for (key, below) in map {
                let place = format!("{at}/{}", escaped(key));
                places(below, &place, all);
                all.push(place);
            }
        }
        Value::Array(list) => {
            for (index, below) in list.iter().enumerate() {
                places(below, &format!("{at}/{index}"), all);
            }
        }
        _ => {}
    }
}

#[test]
fn every_followed_type_decodes() {
    let mut seen = BTreeSet::new();
    for object in objects() {
        seen.insert(object["kind"].as_str().expect("a kind").to_owned());
        if let Err(why) = decode(&object) {
            panic!("{why}: {object}");
        }
    }
    for kind in types!(kinds) {
        assert!(seen.contains(kind), "no object of kind {kind}");
    }
}

/// Go writes null for what was not set, and reads it as such everywhere.
#[test]
fn null_is_what_was_not_set_at_every_place() {
    for object in objects() {
        let mut all = Vec::new();
        places(&object, "", &mut all);
        for place in all.iter().filter(|p| !["/kind", "/apiVersion"].contains(&p.as_str())) {
            let mut nulled = object.clone();
            *nulled.pointer_mut(place).expect("it is there") = Value::Null;
            if let Err(why) = decode(&nulled) {
                panic!("null at {place}: {why}: {object}");
            }
            let (parent, key) = place.rsplit_once('/').expect("a place");
            let mut absent = object.clone();
            let key = key.replace("~1", "/").replace("~0", "~");
            if let Some(map) = absent.pointer_mut(parent).and_then(Value::as_object_mut) {
                map.remove(&key);
            }
            if let Err(why) = decode(&absent) {
                panic!("without {place}: {why}: {object}");
            }
        }
    }
}
