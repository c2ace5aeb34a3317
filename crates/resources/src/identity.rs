//! Who asks, and what they may do: the parts that authenticate, authorize and issue tokens.

use std::sync::Arc;

use auth::{Authenticator, Authorizer};

use crate::ports::StoredObjects;

/// Identities of one server.
pub struct Identity {
    pub authenticator: Arc<Authenticator>,
    pub authorizer: Arc<Authorizer>,
    /// The store, as crate `auth` reads it.
    pub objects: Arc<StoredObjects>,
    /// Issues and checks service account tokens.
    pub tokens: Arc<pki::TokenIssuer>,
}
