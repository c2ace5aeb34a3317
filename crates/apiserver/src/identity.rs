//! Who asks, and what they may do: the parts that authenticate, authorize and issue tokens.

use std::sync::Arc;

use auth::{Authenticator, Authorizer};

use crate::ports::StoredObjects;

/// Identities of one server.
pub(crate) struct Identity {
    pub(crate) authenticator: Arc<Authenticator>,
    pub(crate) authorizer: Arc<Authorizer>,
    /// The store, as crate `auth` reads it.
    pub(crate) objects: Arc<StoredObjects>,
    /// Issues and checks service account tokens.
    pub(crate) tokens: Arc<pki::TokenIssuer>,
}
