//! Messages of `DRAPlugin` (v1; v1beta1 has the same numbers and less in them) and of `DRAResourceHealth`, by
//! the field numbers of upstream's `dra/v1/api.proto` and `dra-health/v1alpha1/api.proto`.

use std::collections::BTreeMap;

use prost::Message;

pub(crate) const WATCH: &str = "/v1alpha1.DRAResourceHealth/NodeWatchResources";

/// A version of the service, with the paths of its methods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Service {
    /// As plugins name it when they register.
    pub(crate) name: &'static str,
    pub(crate) prepare: &'static str,
    pub(crate) unprepare: &'static str,
}

/// The newest first.
pub(crate) const SERVICES: [Service; 2] = [
    Service {
        name: "v1.DRAPlugin",
        prepare: "/k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin/NodePrepareResources",
        unprepare: "/k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin/NodeUnprepareResources",
    },
    Service {
        name: "v1beta1.DRAPlugin",
        prepare: "/k8s.io.kubelet.pkg.apis.dra.v1beta1.DRAPlugin/NodePrepareResources",
        unprepare: "/k8s.io.kubelet.pkg.apis.dra.v1beta1.DRAPlugin/NodeUnprepareResources",
    },
];

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Claim {
    #[prost(string, tag = "1")]
    pub(crate) namespace: String,
    #[prost(string, tag = "2")]
    pub(crate) uid: String,
    #[prost(string, tag = "3")]
    pub(crate) name: String,
}

/// Of either method.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Claims {
    #[prost(message, repeated, tag = "1")]
    pub(crate) claims: Vec<Claim>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Prepared {
    #[prost(btree_map = "string, message", tag = "1")]
    pub(crate) claims: BTreeMap<String, PreparedClaim>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct PreparedClaim {
    #[prost(message, repeated, tag = "1")]
    pub(crate) devices: Vec<Device>,
    #[prost(string, tag = "2")]
    pub(crate) error: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Device {
    #[prost(string, repeated, tag = "1")]
    pub(crate) request_names: Vec<String>,
    #[prost(string, tag = "2")]
    pub(crate) pool_name: String,
    #[prost(string, tag = "3")]
    pub(crate) device_name: String,
    #[prost(string, repeated, tag = "4")]
    pub(crate) cdi_device_ids: Vec<String>,
    #[prost(string, optional, tag = "5")]
    pub(crate) share_id: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Unprepared {
    #[prost(btree_map = "string, message", tag = "1")]
    pub(crate) claims: BTreeMap<String, UnpreparedClaim>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct UnpreparedClaim {
    #[prost(string, tag = "1")]
    pub(crate) error: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct WatchRequest {}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct WatchResponse {
    #[prost(message, repeated, tag = "1")]
    pub(crate) devices: Vec<DeviceHealth>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct DeviceId {
    #[prost(string, tag = "1")]
    pub(crate) pool_name: String,
    #[prost(string, tag = "2")]
    pub(crate) device_name: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct DeviceHealth {
    #[prost(message, optional, tag = "1")]
    pub(crate) device: Option<DeviceId>,
    #[prost(enumeration = "Health", tag = "2")]
    pub(crate) health: i32,
    #[prost(int64, tag = "4")]
    pub(crate) health_check_timeout_seconds: i64,
    #[prost(string, tag = "5")]
    pub(crate) message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum Health {
    Unknown = 0,
    Healthy = 1,
    Unhealthy = 2,
}
