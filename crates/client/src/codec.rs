//! Typed objects from JSON and into it, compiled once.
//!
//! Decoders and encoders of generated types are large, and a generic function that calls them is compiled in every
//! crate that uses it with such a type. So each kind has functions of its own here.

use k8s_openapi::api;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta;
use serde_json::{Error, Value};

/// A kind whose JSON form is compiled in one place ([`codec!`](crate::codec!)).
pub trait Codec: Sized {
    /// Decodes an object as Go does: nulls and absent fields count as zero values.
    fn decode(json: &[u8]) -> Result<Self, Error>;
    /// The items of a list, and its metadata.
    fn decode_list(json: &[u8]) -> Result<(Vec<Self>, ListMeta), Error>;
    fn encode(&self) -> Result<Vec<u8>, Error>;
    /// The object as a tree.
    fn tree(&self) -> Value;
}

/// Implements [`Codec`] for types that implement serde's traits.
#[macro_export]
macro_rules! codec {
    ($($kind:ty),* $(,)?) => {$(
        impl $crate::Codec for $kind {
            fn decode(json: &[u8]) -> Result<Self, $crate::CodecError> {
                $crate::from_slice(json)
            }

            fn decode_list(
                json: &[u8],
            ) -> Result<(Vec<Self>, $crate::ListMeta), $crate::CodecError> {
                $crate::from_slice::<$crate::List<Self>>(json).map(|list| (list.items, list.metadata))
            }

            fn encode(&self) -> Result<Vec<u8>, $crate::CodecError> {
                $crate::to_vec(self)
            }

            fn tree(&self) -> $crate::Tree {
                $crate::to_tree(self)
            }
        }
    )*};
}

/// A list on the wire.
#[derive(serde::Deserialize)]
pub struct List<K> {
    #[serde(default)]
    pub metadata: ListMeta,
    pub items: Vec<K>,
}

/// A typed value as a tree.
pub fn to_tree<T: serde::Serialize>(value: &T) -> Value {
    serde_json::to_value(value).expect("generated types have keys of text and finite numbers")
}

codec! {
    api::admissionregistration::v1::ValidatingAdmissionPolicy,
    api::apps::v1::ControllerRevision,
    api::apps::v1::DaemonSet,
    api::apps::v1::Deployment,
    api::apps::v1::ReplicaSet,
    api::apps::v1::StatefulSet,
    api::authentication::v1::TokenReview,
    api::authorization::v1::SubjectAccessReview,
    api::autoscaling::v2::HorizontalPodAutoscaler,
    api::batch::v1::CronJob,
    api::batch::v1::Job,
    api::certificates::v1::CertificateSigningRequest,
    api::coordination::v1::Lease,
    api::core::v1::ConfigMap,
    api::core::v1::Endpoints,
    api::core::v1::Event,
    api::core::v1::LimitRange,
    api::core::v1::Namespace,
    api::core::v1::Node,
    api::core::v1::PersistentVolume,
    api::core::v1::PersistentVolumeClaim,
    api::core::v1::Pod,
    api::core::v1::PodTemplate,
    api::core::v1::ReplicationController,
    api::core::v1::ResourceQuota,
    api::core::v1::Secret,
    api::core::v1::Service,
    api::core::v1::ServiceAccount,
    api::discovery::v1::EndpointSlice,
    api::events::v1::Event,
    api::networking::v1::IPAddress,
    api::networking::v1::Ingress,
    api::networking::v1::IngressClass,
    api::networking::v1::NetworkPolicy,
    api::networking::v1::ServiceCIDR,
    api::node::v1::RuntimeClass,
    api::policy::v1::PodDisruptionBudget,
    api::rbac::v1::ClusterRole,
    api::rbac::v1::ClusterRoleBinding,
    api::rbac::v1::Role,
    api::rbac::v1::RoleBinding,
    api::resource::v1::DeviceClass,
    api::resource::v1::ResourceClaim,
    api::resource::v1::ResourceClaimTemplate,
    api::resource::v1::ResourceSlice,
    api::scheduling::v1::PriorityClass,
    api::storage::v1::CSIDriver,
    api::storage::v1::CSINode,
    api::storage::v1::CSIStorageCapacity,
    api::storage::v1::StorageClass,
    api::storage::v1::VolumeAttachment,
    api::storage::v1::VolumeAttributesClass,
    apiextensions::v1::CustomResourceDefinition,
}
