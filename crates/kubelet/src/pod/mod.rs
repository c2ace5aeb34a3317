//! One actor per pod: what the API wants, what the runtime has, and what to do about it.
//!
//! `plan` decides (pure), `actor` listens and keeps the memory, `execute` does. A slot (sandbox,
//! volumes, one container, …) has at most one operation at a time; while it runs, planning sees it
//! as busy, so that an image pull of minutes delays nothing else.

mod actor;
mod actor_resize;
mod actor_static;
mod actuate;
mod execute;
pub(crate) mod memory;
pub(crate) mod observed;
pub(crate) mod plan;
pub(crate) mod replace;
pub(crate) mod reset;
pub(crate) mod resize;
mod spans;
mod start;
mod start_images;
mod start_mounts;
mod terminate;

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::{mpsc, oneshot};

use crate::admission::Refusal;
use crate::probe::ProbeKind;

pub(crate) use actor::spawn;
pub(crate) use start::{pod_reference, reference};
pub(crate) use terminate::{is_ending as terminating, may_run};

/// How a pod comes to its actor.
#[derive(Debug)]
pub(crate) enum Admission {
    Taken,
    /// It does nothing before [`Event::Admitted`]: other pods end first to make room for it.
    Held,
    Refused(Refusal),
}

/// What an actor hears.
#[derive(Debug)]
pub(crate) enum Event {
    /// The API's object changed.
    Changed(Arc<Pod>),
    /// The API's object is gone.
    Gone,
    /// A pod that was held may start.
    Admitted,
    /// What the API shows of a static pod; `None` when it shows none any more.
    Mirror(Option<Arc<Pod>>),
    /// Something happened to the pod in the runtime.
    Runtime,
    /// A config map, secret or other object that the pod refers to changed.
    Reference,
    /// What was decided on a change of the pod's resources.
    Resize(crate::spec::resize::News),
    /// The node must get rid of the pod.
    Evict {
        reason: &'static str,
        message: String,
        /// Seconds instead of the pod's own.
        grace: Option<i64>,
        /// Why, as the condition `DisruptionTarget` says it.
        disruption: Option<String>,
        /// Whether an event tells it, too.
        announced: bool,
        /// Dropped once nothing of the pod runs any more.
        ended: Option<oneshot::Sender<()>>,
    },
    /// A probe's verdict on a container instance changed.
    Probe { container: String, instance: String, kind: ProbeKind, healthy: bool },
}

/// The way to an actor. It ends when the last sender is dropped, or the pod is gone and cleaned up.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    sender: mpsc::UnboundedSender<Event>,
}

impl Handle {
    /// An ended actor hears nothing, which is as good.
    pub(crate) fn send(&self, event: Event) -> bool {
        self.sender.send(event).is_ok()
    }
}

#[cfg(test)]
mod tests;
