//! Admission webhooks: MutatingAdmissionWebhook and ValidatingAdmissionWebhook (apiserver
//! `admission/plugin/webhook`).
//!
//! [`Webhooks`] keeps the hooks of all configurations as an immutable snapshot, which follows the store. A
//! request asks each hook whether it matches, and calls those that do: mutating ones one after the other,
//! validating ones at once. How a hook is reached is known to [`Callers`].

mod call;
mod hook;
pub mod lockout;
mod metrics;
mod mutating;
mod review;
mod snapshot;
mod validating;

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::attributes::{Attributes, BoxFuture};
use crate::matching::is_exempt;
use crate::plugin::{Decision, Plugin};

pub use hook::Hook;
pub(crate) use metrics::figures;
#[doc(hidden)]
pub use review::is_usable;
pub use snapshot::{Snapshot, Webhooks};

/// Why a call brought no answer, in the words of upstream's client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallFailure {
    /// The HTTP status of an answer that says so.
    pub code: Option<u16>,
    pub message: String,
}

impl CallFailure {
    /// Whether another try may bring an answer (apiserver `webhook.DefaultShouldRetry`).
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self.code, Some(429 | 500 | 504))
            || self.message.ends_with("connection reset by peer")
    }
}

/// Reaches one webhook.
pub trait Caller: Send + Sync {
    /// Sends a review and reads the answer.
    fn call<'a>(
        &'a self,
        review: &'a Value,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Value, CallFailure>>;
}

/// Makes ready what a `clientConfig` names.
pub trait Callers: Send + Sync {
    fn caller(&self, client_config: &Value) -> Result<Arc<dyn Caller>, String>;
}

/// The plugin MutatingAdmissionWebhook.
pub(crate) struct MutatingWebhooks(pub(crate) Arc<Webhooks>);

/// The plugin ValidatingAdmissionWebhook.
pub(crate) struct ValidatingWebhooks(pub(crate) Arc<Webhooks>);

impl Plugin for MutatingWebhooks {
    fn name(&self) -> &'static str {
        mutating::PLUGIN
    }

    fn reads_managers(&self) -> bool {
        true
    }

    fn handles(&self, request: &Attributes<'_>) -> bool {
        !is_exempt(request.row) && !self.0.current().mutating.is_empty()
    }

    fn mutate<'a>(&'a self, request: &'a Attributes<'a>, object: &'a mut Value) -> Decision<'a> {
        let snapshot = self.0.current();
        Decision::Later(Box::pin(async move {
            mutating::dispatch(&snapshot.mutating, request, object).await
        }))
    }
}

impl Plugin for ValidatingWebhooks {
    fn name(&self) -> &'static str {
        "ValidatingAdmissionWebhook"
    }

    fn reads_managers(&self) -> bool {
        true
    }

    fn handles(&self, request: &Attributes<'_>) -> bool {
        !is_exempt(request.row) && !self.0.current().validating.is_empty()
    }

    fn validate<'a>(&'a self, request: &'a Attributes<'a>, object: &'a Value) -> Decision<'a> {
        let snapshot = self.0.current();
        Decision::Later(Box::pin(async move {
            validating::dispatch(&snapshot.validating, request, object).await
        }))
    }
}
