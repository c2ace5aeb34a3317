//! Network policies, ingresses, and the addresses of services.

mod addresses;
mod ingress;
mod policy;

pub(crate) use addresses::{IP_ADDRESS, SERVICE_CIDR};
pub(crate) use ingress::{CLASS as INGRESS_CLASS, KIND as INGRESS};
pub(crate) use policy::KIND as NETWORK_POLICY;
