//! Packs the descriptions of the `k8s-openapi` crate's schemas into one compressed text, so that
//! `explain` and OpenAPI can tell them without a copy in this repository.

use std::io::Write;
use std::path::PathBuf;

use k8s_openapi::api::*;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::Value;

macro_rules! register {
    ($generator:ident, $($ty:ty),* $(,)?) => { $($generator.subschema_for::<$ty>();)* };
}

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let mut generator = SchemaSettings::draft07().into_generator();
    roots(&mut generator);
    let mut text = String::new();
    for (name, schema) in generator.definitions() {
        let name = name.replace("~1", "/");
        describe(&mut text, &name, schema);
    }
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let file = std::fs::File::create(out.join("prose.gz")).expect("OUT_DIR is writable");
    let mut packed = flate2::write::GzEncoder::new(file, flate2::Compression::best());
    packed.write_all(text.as_bytes()).expect("OUT_DIR is writable");
    packed.finish().expect("OUT_DIR is writable");
}

/// Records are `type\x1ftext\x1e` and `type#field\x1ftext\x1e`.
fn describe(out: &mut String, name: &str, schema: &Value) {
    let mut put = |key: &str, schema: &Value| {
        if let Some(text) = schema["description"].as_str() {
            *out += &format!("{key}\x1f{text}\x1e");
        }
    };
    put(name, schema);
    for (field, schema) in schema["properties"].as_object().into_iter().flatten() {
        put(&format!("{name}#{field}"), schema);
    }
}

/// Every kind; what they refer to follows.
fn roots(generator: &mut SchemaGenerator) {
    register!(
        generator,
        core::v1::Binding, core::v1::ComponentStatus, core::v1::ConfigMap, core::v1::Endpoints,
        core::v1::Event, core::v1::LimitRange, core::v1::Namespace, core::v1::Node,
        core::v1::PersistentVolume, core::v1::PersistentVolumeClaim, core::v1::Pod,
        core::v1::PodTemplate, core::v1::ReplicationController, core::v1::ResourceQuota,
        core::v1::Secret, core::v1::Service, core::v1::ServiceAccount,
        apps::v1::ControllerRevision, apps::v1::DaemonSet, apps::v1::Deployment,
        apps::v1::ReplicaSet, apps::v1::StatefulSet, events::v1::Event,
        authentication::v1::TokenRequest, authentication::v1::TokenReview,
        authentication::v1::SelfSubjectReview, authorization::v1::LocalSubjectAccessReview,
        authorization::v1::SelfSubjectAccessReview, authorization::v1::SelfSubjectRulesReview,
        authorization::v1::SubjectAccessReview, autoscaling::v1::HorizontalPodAutoscaler,
        autoscaling::v1::Scale, autoscaling::v2::HorizontalPodAutoscaler, batch::v1::CronJob,
        batch::v1::Job, certificates::v1::CertificateSigningRequest, networking::v1::Ingress,
        networking::v1::IngressClass, networking::v1::IPAddress, networking::v1::NetworkPolicy,
        networking::v1::ServiceCIDR, policy::v1::Eviction, policy::v1::PodDisruptionBudget,
        rbac::v1::ClusterRole, rbac::v1::ClusterRoleBinding, rbac::v1::Role, rbac::v1::RoleBinding,
        storage::v1::CSIDriver, storage::v1::CSINode, storage::v1::CSIStorageCapacity,
        storage::v1::StorageClass, storage::v1::VolumeAttachment, storage::v1::VolumeAttributesClass,
        admissionregistration::v1::MutatingWebhookConfiguration,
        admissionregistration::v1::ValidatingWebhookConfiguration,
        admissionregistration::v1::ValidatingAdmissionPolicy,
        admissionregistration::v1::ValidatingAdmissionPolicyBinding,
        admissionregistration::v1::MutatingAdmissionPolicy,
        admissionregistration::v1::MutatingAdmissionPolicyBinding,
        k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
        k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService,
        scheduling::v1::PriorityClass, coordination::v1::Lease, node::v1::RuntimeClass,
        discovery::v1::EndpointSlice, resource::v1::DeviceClass, resource::v1::ResourceClaim,
        resource::v1::ResourceClaimTemplate, resource::v1::ResourceSlice,
        flowcontrol::v1::FlowSchema, flowcontrol::v1::PriorityLevelConfiguration,
        k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions,
        k8s_openapi::apimachinery::pkg::apis::meta::v1::Status,
    );
}
