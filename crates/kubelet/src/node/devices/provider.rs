//! Devices as a provider of what containers are given when their pod is admitted.

use async_trait::async_trait;
use placement::{AdmissionError, Asking, Choice, Container, Hint, HintProvider, Hints, Kind, Pod};
use prost::Message as _;

use super::Devices;

/// Gives devices to the containers of one pod.
pub(crate) struct Provider<'a> {
    pub(crate) devices: &'a Devices,
    /// Containers of the pod that ran already when the kubelet was started, while it has not read all pods:
    /// these have what they need.
    pub(crate) running: Vec<String>,
}

#[async_trait]
impl HintProvider for Provider<'_> {
    fn hints(&mut self, pod: &Pod, container: &Container) -> Hints {
        self.devices.table().hints(pod, container)
    }

    fn pod_hints(&mut self, pod: &Pod) -> Hints {
        self.devices.table().pod_hints(pod)
    }

    async fn allocate(
        &mut self,
        pod: &Pod,
        container: &Container,
        affinity: Hint,
    ) -> Result<(), AdmissionError> {
        self.devices.table().begin_pod(&pod.uid);
        let given = self.all(pod, container, affinity).await;
        let given = given.map_err(AdmissionError::unexpected)?;
        let mut table = self.devices.table();
        table.note_reusable(&pod.uid, &container.name, container.kind == Kind::Init);
        if given {
            table.store();
        }
        Ok(())
    }
}

impl Provider<'_> {
    /// Whether the container was given anything new.
    async fn all(&self, pod: &Pod, container: &Container, affinity: Hint) -> Result<bool, String> {
        let mut given = false;
        for (resource, count) in &container.extended {
            if !self.devices.table().is_known(resource) {
                continue;
            }
            let (uid, name) = (pod.uid.as_str(), container.name.as_str());
            let count = usize::try_from(*count).unwrap_or(usize::MAX);
            let asking = Asking { uid, container: name, resource, count };
            if self.running.contains(&container.name) {
                continue;
            }
            let one = self.one(asking, affinity).await;
            if one.is_err() {
                self.devices.table().release();
            }
            given |= one?;
        }
        Ok(given)
    }

    async fn one(&self, asking: Asking<'_>, affinity: Hint) -> Result<bool, String> {
        let devices = self.devices;
        let choice = devices.table().choose(asking, affinity)?;
        let unknown = || format!("unknown Device Plugin {}", asking.resource);
        let plugin = devices.plugin(asking.resource);
        let chosen = match choice {
            Choice::Nothing => return Ok(false),
            Choice::Chosen(chosen) => chosen,
            Choice::Ask(asked) => {
                let plugin = plugin.as_ref().ok_or_else(unknown)?;
                let preferred = plugin.preferred(&asked).await?;
                devices.table().choose_preferred(asking.resource, asked, &preferred)?
            }
        };
        let plugin = plugin.ok_or_else(unknown)?;
        let timer = devices.figures.allocations.with_label_values(&[asking.resource]);
        let timer = timer.start_timer();
        let answer = plugin.allocate(&chosen).await;
        timer.observe_duration();
        devices.table().give(asking, &chosen, answer?.encode_to_vec());
        Ok(true)
    }
}
