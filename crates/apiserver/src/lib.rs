//! The HTTP surface: one generic pipeline, one handler a verb, routed by the registry.
//!
//! [`Server`] answers requests whatever carried them; [`listen`] puts it behind TLS, and
//! [`Local`] in front of the parts that run in the same process. Which engine keeps the objects,
//! and what controllers do with them, is not known here.

mod addresses;
mod admission;
mod admission_options;
mod admit;
mod aggregate;
mod allocate;
mod body;
mod bootstrap;
mod call;
mod columns;
mod conditions;
mod context;
mod custom;
mod decode;
mod definitions;
mod delegates;
mod dialer;
mod discovery;
mod documents;
mod exchange;
mod expiry;
mod filters;
mod health;
mod health_check;
mod identity;
mod legacy_tokens;
mod life;
mod limits;
mod listen;
mod local;
mod managed;
mod meta;
mod metrics;
mod node_proxy;
mod offload;
mod openapi;
mod openapi_merge;
mod parts;
mod paths;
mod ports;
mod query;
mod resource_metrics;
mod resources;
mod respond;
mod scale_view;
mod server;
mod service_network;
mod strategy;
mod transaction;
mod type_names;
mod verbs;
mod versions;
mod virtuals;
mod write_failure;

pub use ::admission::{Configuration, Selection};
pub use admission_options::AdmissionOptions;
pub use aggregate::FrontProxy;
pub use allocate::{NODE_PORTS, ServiceNetwork};
pub use audit;
pub use auth::{
    Abac, Anonymous, Authenticator, AuthorizationConfiguration, AuthorizationModes, AuthorizerType,
    Configuration as AuthenticationConfiguration, Fetch, FrontProxies, Mode, ReviewFailure,
    ReviewWebhook, SubjectAccessReviews, TokenFileError, TokenReviews, User, WebhookSettings,
};
pub use dialer::{Identity, KubeletTls, NoNodes, NodeDialer};
pub use health_check::HealthCheck;
pub use limits::Limits;
pub use listen::{Listening, LiveTls, TlsError, TlsSetup, listen};
pub use local::Local;
pub use offload::release_memory_by;
pub use server::{Config, Figures, Server, StartError, collections};
pub use telemetry::zpages::Component;

/// How built-in objects are kept in an etcd.
pub const STORED_FORM: store::Form =
    store::Form { written: printers::stored::written, read: printers::stored::read };
