//! Whatever the API accepts has a typed form: trees made from the schema, with null or nothing in every
//! place, are decoded by every type that informers hold.

use api::schema::{Schema, Shape};
use client::Resource;
use serde_json::{Map, Value};

/// Deeper than any type of the list below but those that contain themselves.
const DEPTH_MAX: usize = 14;

/// What stands in the places of a tree.
#[derive(Clone, Copy, PartialEq)]
enum Fill {
    /// Every struct, list and map is there; every scalar is null.
    NullScalars,
    /// As above, and the elements of lists and maps of scalars, and of structs, are null.
    NullElements,
    /// Lists hold one empty struct; structs are there and empty, scalars are not.
    EmptyStructs,
}

fn tree(schema: &Schema, shape: &Shape, fill: Fill, depth: usize) -> Value {
    if depth > DEPTH_MAX {
        return Value::Null;
    }
    let below = |shape| tree(schema, shape, fill, depth + 1);
    match shape {
        Shape::List(_) if fill == Fill::NullElements => Value::from(vec![Value::Null]),
        Shape::Map(_) if fill == Fill::NullElements => Value::from(of_one(Value::Null)),
        Shape::List(inner) => Value::from(vec![below(inner)]),
        Shape::Map(inner) => Value::from(of_one(below(inner))),
        Shape::Struct(id) => {
            let fields = schema.get(*id).fields.iter();
            let named = fields.map(|f| (f.name.to_string(), below(&f.shape)));
            let kept = named.filter(|(name, value)| {
                let names_type = depth == 0 && ["apiVersion", "kind"].contains(&name.as_str());
                !names_type && (fill != Fill::EmptyStructs || !value.is_null())
            });
            Value::from(kept.collect::<Map<_, _>>())
        }
        _ => Value::Null,
    }
}

fn of_one(value: Value) -> Map<String, Value> {
    Map::from_iter([("key".to_owned(), value)])
}

fn check<K: Resource>(package: &str) {
    let schema = Schema::built_in();
    let name = format!("{package}.{}.{}", K::VERSION, K::KIND);
    let id = schema.find(&name).unwrap_or_else(|| panic!("no type {name}"));
    for fill in [Fill::NullScalars, Fill::NullElements, Fill::EmptyStructs] {
        let mut value = tree(schema, &Shape::Struct(id), fill, 0);
        assert!(value.as_object().is_some_and(|map| map.contains_key("metadata")), "{name}");
        value["apiVersion"] = K::API_VERSION.into();
        value["kind"] = K::KIND.into();
        let typed: K = api::typed::from_value(&value).unwrap_or_else(|e| panic!("{name}: {e}"));
        // What an update would send back is well-formed, too.
        let text = serde_json::to_vec(&typed).expect("encodes");
        let _again: K = api::typed::from_slice(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}

macro_rules! check_all {
    ($($package:literal: $module:path => $($kind:ident),+;)*) => {$({
        use $module as module;
        $(check::<module::$kind>($package);)+
    })*};
}

#[test]
fn null_and_absent_values_decode_in_every_place_of_every_kind() {
    check_all! {
        "core": k8s_openapi::api::core::v1 => ConfigMap, Endpoints, Event, LimitRange, Namespace, Node,
            PersistentVolume, PersistentVolumeClaim, Pod, PodTemplate, ReplicationController,
            ResourceQuota, Secret, Service, ServiceAccount;
        "apps": k8s_openapi::api::apps::v1 => ControllerRevision, DaemonSet, Deployment, ReplicaSet,
            StatefulSet;
        "batch": k8s_openapi::api::batch::v1 => CronJob, Job;
        "autoscaling": k8s_openapi::api::autoscaling::v2 => HorizontalPodAutoscaler;
        "certificates": k8s_openapi::api::certificates::v1 => CertificateSigningRequest;
        "coordination": k8s_openapi::api::coordination::v1 => Lease;
        "discovery": k8s_openapi::api::discovery::v1 => EndpointSlice;
        "events": k8s_openapi::api::events::v1 => Event;
        "networking": k8s_openapi::api::networking::v1 => IPAddress, Ingress, IngressClass,
            NetworkPolicy, ServiceCIDR;
        "node": k8s_openapi::api::node::v1 => RuntimeClass;
        "policy": k8s_openapi::api::policy::v1 => PodDisruptionBudget;
        "rbac": k8s_openapi::api::rbac::v1 => ClusterRole, ClusterRoleBinding, Role, RoleBinding;
        "resource": k8s_openapi::api::resource::v1 => DeviceClass, ResourceClaim, ResourceSlice;
        "scheduling": k8s_openapi::api::scheduling::v1 => PriorityClass;
        "storage": k8s_openapi::api::storage::v1 => CSIDriver, CSINode, StorageClass, VolumeAttachment,
            VolumeAttributesClass;
    }
}

#[test]
fn a_condition_without_a_time_keeps_its_service() {
    let service: k8s_openapi::api::core::v1::Service = api::typed::from_slice(
        br#"{"kind":"Service","apiVersion":"v1","metadata":{"name":"web"},"spec":{"clusterIP":"10.0.0.1",
        "ports":[{"port":80,"targetPort":"http"}]},
        "status":{"conditions":[{"type":"Ready","lastTransitionTime":null}, {"type":"Known"}]}}"#,
    )
    .expect("a Service");
    assert_eq!(service.spec.and_then(|s| s.cluster_ip).as_deref(), Some("10.0.0.1"));
    let conditions = service.status.and_then(|s| s.conditions).expect("conditions");
    assert_eq!(conditions[0].type_, "Ready");
    assert_eq!(conditions[1].last_transition_time.0.to_string(), "0001-01-01T00:00:00Z");
}

#[test]
fn a_claim_template_may_name_any_type() {
    let set: k8s_openapi::api::apps::v1::StatefulSet = api::typed::from_slice(
        br#"{"kind":"StatefulSet","apiVersion":"apps/v1","metadata":{"name":"db"},"spec":{
        "serviceName":"db","selector":{},"template":{},"volumeClaimTemplates":[
        {"kind":"Claim","apiVersion":"","metadata":{"name":"data"}}]}}"#,
    )
    .expect("a StatefulSet");
    let claims = set.spec.and_then(|s| s.volume_claim_templates).expect("claims");
    assert_eq!(claims[0].metadata.name.as_deref(), Some("data"));
}

#[test]
fn a_value_of_another_type_is_refused() {
    type Pod = k8s_openapi::api::core::v1::Pod;
    for wrong in [
        r#"{"kind":"Node","apiVersion":"v1","metadata":{}}"#,
        r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":7}}"#,
        r#"{"kind":"Pod","apiVersion":"v1","metadata":{"labels":["a"]}}"#,
        r#"{"kind":"Pod","apiVersion":"v1","metadata":{"creationTimestamp":"today"}}"#,
        r#"{"kind":"Pod""#,
    ] {
        assert!(api::typed::from_slice::<Pod>(wrong.as_bytes()).is_err(), "{wrong}");
    }
}
