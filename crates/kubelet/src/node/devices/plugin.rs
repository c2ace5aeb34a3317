//! One device plugin behind its socket.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use csi::Socket;
use grpc::{Answers, CallError, Channel, Settings};
use tokio::time::Instant;

use super::wire::*;

/// Upstream's limit for the first connection.
const CONNECT: Duration = Duration::from_secs(10);
/// Upstream's `KubeletPreStartContainerRPCTimeoutInSecs`.
const PRE_START_MAX: Duration = Duration::from_secs(30);
/// Plugins may set devices up before they answer. Upstream waits for ever.
const ALLOCATE_MAX: Duration = Duration::from_secs(2 * 60);
/// Time until a plugin lists its devices for the first time.
const FIRST_LIST: Duration = Duration::from_secs(10 * 60);
/// A plugin that is gone for longer is not expected back (upstream's `endpointStopGracePeriod`).
const GRACE: Duration = Duration::from_secs(5 * 60);
/// Longest answer, in bytes: grpc-go's limit.
const MESSAGE_MAX: usize = 4 << 20;

/// How a plugin is called.
struct Calls {
    /// A call that is late ends its connection, which the list of devices must not notice.
    calls: Channel<Socket>,
    watch: Channel<Socket>,
    options: DevicePluginOptions,
}

/// The plugin of a resource; one that is known from a state file only has stopped.
pub(super) struct Plugin {
    resource: String,
    calls: Option<Calls>,
    stopped_at: Mutex<Option<Instant>>,
}

fn channel(socket: &Path, deadline: Duration) -> Channel<Socket> {
    let settings = Settings {
        peer: "the device plugin",
        origin: "http://localhost".into(),
        headers: &[],
        deadline,
        message_max: MESSAGE_MAX,
        decorate: None,
    };
    Channel::new(Socket(socket.to_owned()), settings)
}

impl Plugin {
    /// Known from before the kubelet's start.
    pub(super) fn stopped(resource: &str) -> Plugin {
        let stopped_at = Mutex::new(Some(Instant::now()));
        Plugin { resource: resource.to_owned(), calls: None, stopped_at }
    }

    /// Connects and asks for its options.
    pub(super) async fn connect(resource: &str, socket: &Path) -> Result<Plugin, String> {
        let calls = channel(socket, ALLOCATE_MAX);
        let asked = calls.call_within(OPTIONS, &Empty {}, CONNECT).await;
        let options = asked.map_err(|error| match error {
            CallError::Unreachable(why) => format!("failed to dial device plugin: {why}"),
            other => format!("failed to get device plugin options: {}", other.go_text()),
        })?;
        let calls = Calls { calls, watch: channel(socket, FIRST_LIST), options };
        let resource = resource.to_owned();
        Ok(Plugin { resource, calls: Some(calls), stopped_at: Mutex::default() })
    }

    fn stopped_at(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.stopped_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn stop(&self) {
        self.stopped_at().get_or_insert_with(Instant::now);
    }

    /// Whether it has not come back in time.
    pub(super) fn is_given_up(&self) -> bool {
        self.stopped_at().is_some_and(|at| at.elapsed() > GRACE)
    }

    fn calls(&self) -> Result<&Calls, String> {
        let running = self.calls.as_ref().filter(|_| self.stopped_at().is_none());
        running.ok_or_else(|| format!("endpoint {} has been stopped", self.resource))
    }

    /// All devices, again whenever they change.
    pub(super) async fn watch(&self) -> Result<Answers<ListAndWatchResponse>, String> {
        let stream = self.calls()?.watch.stream(LIST_AND_WATCH, &Empty {}).await;
        stream.map_err(|e| e.go_text())
    }

    /// The devices that it would rather give; nothing when it has no preferences.
    pub(super) async fn preferred(
        &self,
        asked: &placement::Preference,
    ) -> Result<BTreeSet<String>, String> {
        let list = |ids: &BTreeSet<String>| ids.iter().cloned().collect();
        // One that has stopped since is told so by the allocation.
        let Some(calls) =
            self.calls.as_ref().filter(|c| c.options.get_preferred_allocation_available)
        else {
            return Ok(BTreeSet::new());
        };
        self.calls()?;
        let request = ContainerPreferredAllocationRequest {
            available_device_ids: list(&asked.available),
            must_include_device_ids: list(&asked.must_include),
            allocation_size: i32::try_from(asked.size).unwrap_or(i32::MAX),
        };
        let request = PreferredAllocationRequest { container_requests: vec![request] };
        let answer = calls.calls.call::<_, PreferredAllocationResponse>(PREFERRED, &request).await;
        let answer = answer.map_err(|e| {
            format!("device plugin GetPreferredAllocation rpc failed with err: {}", e.go_text())
        })?;
        Ok(answer
            .container_responses
            .into_iter()
            .next()
            .unwrap_or_default()
            .ids
            .into_iter()
            .collect())
    }

    pub(super) async fn allocate(
        &self,
        ids: &BTreeSet<String>,
    ) -> Result<ContainerAllocateResponse, String> {
        let ids = DeviceIds { ids: ids.iter().cloned().collect() };
        let request = AllocateRequest { container_requests: vec![ids] };
        let answer = self.calls()?.calls.call::<_, AllocateResponse>(ALLOCATE, &request).await;
        let answer = answer.map_err(|e| e.go_text())?;
        let first = answer.container_responses.into_iter().next();
        first.ok_or_else(|| "no containers return in allocation response".to_owned())
    }

    /// Whether it wants to be told before a container starts.
    pub(super) fn wants_pre_start(&self) -> bool {
        self.calls.as_ref().is_some_and(|c| c.options.pre_start_required)
    }

    pub(super) async fn pre_start(&self, ids: &BTreeSet<String>) -> Result<(), String> {
        let failed =
            |why: String| format!("device plugin PreStartContainer rpc failed with err: {why}");
        let calls = self.calls().map_err(failed)?;
        let request = PreStartContainerRequest { devices_ids: ids.iter().cloned().collect() };
        let done = calls.calls.call_within::<_, Empty>(PRE_START, &request, PRE_START_MAX).await;
        done.map(drop).map_err(|e| failed(e.go_text()))
    }
}
