//! The interface of admission plugins.

use api::Status;
use auth::Inquiry;
use serde_json::Value;

use crate::attributes::{Attributes, BoxFuture};

pub type Verdict = Result<(), Status>;

/// A plugin's decision: at once, or after a call to another server.
pub enum Decision<'a> {
    /// The plugin has nothing to say in this phase, whatever the request is.
    Absent,
    Now(Result<(), Box<Status>>),
    Later(BoxFuture<'a, Verdict>),
}

impl<'a> Decision<'a> {
    pub const ALLOWED: Decision<'static> = Decision::Now(Ok(()));

    /// Of a plugin that asks what the requester may do: at once, unless a webhook has to be asked.
    pub(crate) fn asking(
        request: &'a Attributes<'a>,
        judge: impl Fn(&Inquiry<'_>) -> Verdict + Send + Sync + 'a,
    ) -> Decision<'a> {
        let inquiry = Inquiry::new(request.cluster.authorizer());
        let verdict = judge(&inquiry);
        if !inquiry.has_missed() {
            return verdict.into();
        }
        Decision::Later(Box::pin(async move { inquiry.settle(judge).await }))
    }

    pub(crate) async fn made(self) -> Verdict {
        match self {
            Decision::Absent => Ok(()),
            Decision::Now(verdict) => verdict.map_err(|status| *status),
            Decision::Later(verdict) => verdict.await,
        }
    }
}

impl From<Verdict> for Decision<'_> {
    fn from(verdict: Verdict) -> Self {
        Decision::Now(verdict.map_err(Box::new))
    }
}

/// One admission plugin. It does nothing in a phase that it does not implement.
pub trait Plugin: Send + Sync {
    /// Upstream's name.
    fn name(&self) -> &'static str;

    /// Whether the plugin looks at such a request; cheap, since every request asks it.
    fn handles(&self, request: &Attributes<'_>) -> bool;

    /// Whether it looks at the object's managers; other plugins may get a folded tree (`api::apply::folded`).
    fn reads_managers(&self) -> bool {
        false
    }

    /// Changes the object, or refuses it before anything else is looked at. A deletion has no object
    /// (null); that of a connection is its options.
    fn mutate<'a>(&'a self, _: &'a Attributes<'a>, _: &'a mut Value) -> Decision<'a> {
        Decision::Absent
    }

    /// Refuses a complete and valid object.
    fn validate<'a>(&'a self, _: &'a Attributes<'a>, _: &'a Value) -> Decision<'a> {
        Decision::Absent
    }
}
