//! Who gives containers resources that lie somewhere on the machine.

use std::collections::BTreeMap;

use async_trait::async_trait;

use crate::error::AdmissionError;
use crate::mask::Hint;
use crate::pod::{Container, Pod};

/// Hints by resource. `None` for one: anywhere will do; an empty list: nowhere is enough.
pub type Hints = BTreeMap<String, Option<Vec<Hint>>>;

#[async_trait]
pub trait HintProvider: Send {
    /// Where the container's resources could come from; empty: it needs none of this provider.
    fn hints(&mut self, pod: &Pod, container: &Container) -> Hints;

    /// The same for the pod as a whole.
    fn pod_hints(&mut self, pod: &Pod) -> Hints;

    /// Gives the container what it requests, from the nodes of the hint if possible.
    async fn allocate(
        &mut self,
        pod: &Pod,
        container: &Container,
        affinity: Hint,
    ) -> Result<(), AdmissionError>;
}

/// A node without device plugins.
#[derive(Debug, Default)]
pub struct NoDevices;

#[async_trait]
impl HintProvider for NoDevices {
    fn hints(&mut self, _: &Pod, _: &Container) -> Hints {
        Hints::new()
    }

    fn pod_hints(&mut self, _: &Pod) -> Hints {
        Hints::new()
    }

    async fn allocate(&mut self, _: &Pod, _: &Container, _: Hint) -> Result<(), AdmissionError> {
        Ok(())
    }
}
