//! The HTTP surface: one generic pipeline, one handler a verb, routed by the registry.
//!
//! [`Server`] answers requests whatever carried them; [`listen`] puts it behind TLS, and
//! [`Local`] in front of the parts that run in the same process. Which engine keeps the objects,
//! and what controllers do with them, is not known here.

mod addresses;
mod aggregate;
mod bootstrap;
mod component_status;
mod definitions;
mod delegates;
mod dialer;
mod exchange;
mod expiry;
mod filters;
mod health;
mod legacy_tokens;
mod life;
mod listen;
mod local;
mod node_proxy;
mod openapi;
mod parts;
mod paths;
mod resource_metrics;
mod server;
mod service_network;

pub use ::admission::{Configuration, Selection};
pub use aggregate::FrontProxy;
pub use audit;
pub use auth::{
    Abac, Anonymous, Authenticator, AuthorizationConfiguration, AuthorizationModes, AuthorizerType,
    Configuration as AuthenticationConfiguration, Fetch, FrontProxies, Mode, ReviewFailure,
    ReviewWebhook, SubjectAccessReviews, TokenFileError, TokenReviews, User, WebhookSettings,
};
pub use dialer::{Identity, KubeletTls, NoNodes, NodeDialer};
pub use listen::{Listening, LiveTls, TlsError, TlsSetup, listen};
pub use local::Local;
pub use resources::admission_options::AdmissionOptions;
pub use resources::health_check::HealthCheck;
pub use resources::limits::Limits;
pub use server::{Config, Figures, Server, StartError, collections};
pub use strategy::allocate::{NODE_PORTS, ServiceNetwork};
pub use strategy::offload::release_memory_by;
pub use telemetry::zpages::Component;

/// How built-in objects are kept in an etcd.
pub const STORED_FORM: store::Form =
    store::Form { written: printers::stored::written, read: printers::stored::read };
