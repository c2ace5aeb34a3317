//! Who sends a request, whether it is allowed, and in whose name: authentication, authorization (Node,
//! RBAC), impersonation, and the checks against escalation.
//!
//! Stored objects are read through [`Objects`]. What a request is about is a [`RequestInfo`].

mod authn;
mod authz;
mod config_file;
mod objects;
mod request_info;
mod user;

pub use authn::impersonation;
pub use authn::{
    Anonymous, Authenticator, Configuration, ConfigurationError, Fetch, FrontProxies, Known,
    LegacyUse, LegacyUses, Refusal, Sender, Sent, TokenFileError, TokenReviews, Unknown,
};
pub use authz::{
    Abac, Attributes, Authorization, AuthorizationConfiguration, AuthorizationFault,
    AuthorizationModes, Authorizer, AuthorizerType, Inquiry, Mode, Opinion, PolicyFileError,
    Resolved, ReviewFailure, ReviewWebhook, RoleRef, Rule, SubjectAccessReviews, WebhookSettings,
    escalation, forbidden, references, refusal,
};
pub use objects::{Collection, Objects};
pub use request_info::{RequestInfo, decode_path, encode_path};
pub use user::{MASTERS, User, account_groups, account_name, is_subdomain, split_account};
