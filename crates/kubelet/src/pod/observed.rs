//! A pod as the runtime has it: sandboxes and container instances, found by their labels.

use std::collections::{BTreeMap, HashMap};

use runtime::cri::{
    ContainerFilter, ContainerState, ContainerStatus, PodSandboxFilter, PodSandboxState, Signal,
};

use crate::config::KubeletConfig;
use crate::kubelet::Shared;
use crate::spec::labels;
use crate::spec::resize::Amounts;
use crate::{logs, volumes};

/// Longest termination message taken from the log.
const MESSAGE_FROM_LOG_BYTES: usize = 2048;
const MESSAGE_FROM_LOG_LINES: usize = 80;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sandbox {
    pub(crate) id: String,
    pub(crate) attempt: u32,
    pub(crate) ready: bool,
    pub(crate) created_at: i64,
    pub(crate) ips: Vec<String>,
    /// The runtime handler that it was made with.
    pub(crate) handler: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Created,
    Running,
    Exited,
    Unknown,
}

/// One run of a container. Times are nanoseconds since the epoch.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Instance {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) sandbox: String,
    pub(crate) attempt: u32,
    pub(crate) state: State,
    pub(crate) created_at: i64,
    pub(crate) started_at: i64,
    pub(crate) finished_at: i64,
    pub(crate) exit_code: i32,
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) image: String,
    pub(crate) image_ref: String,
    pub(crate) hash: String,
    pub(crate) log_path: String,
    pub(crate) stop_signal: Option<&'static str>,
    /// uid, gid, supplemental groups.
    pub(crate) user: Option<(i64, i64, Vec<i64>)>,
    /// Its resources when it was made.
    pub(crate) amounts: Option<Amounts>,
}

/// All of a pod, newest first.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Observed {
    pub(crate) sandboxes: Vec<Sandbox>,
    pub(crate) containers: Vec<Instance>,
}

impl Observed {
    pub(crate) fn sandbox(&self) -> Option<&Sandbox> {
        self.sandboxes.first()
    }

    pub(crate) fn latest(&self, name: &str) -> Option<&Instance> {
        self.containers.iter().find(|c| c.name == name)
    }

    /// The run before the latest.
    pub(crate) fn previous(&self, name: &str) -> Option<&Instance> {
        self.containers.iter().filter(|c| c.name == name).nth(1)
    }

    pub(crate) fn running(&self) -> impl Iterator<Item = &Instance> {
        self.containers.iter().filter(|c| matches!(c.state, State::Running | State::Unknown))
    }
}

/// Looks at the runtime. Instances that had ended already are taken from `before`: they do not change.
pub(crate) async fn observe(
    shared: &Shared,
    uid: &str,
    before: &Observed,
) -> runtime::Result<Observed> {
    let runtime = &*shared.runtime;
    let selector = BTreeMap::from([(labels::POD_UID.to_owned(), uid.to_owned())]);
    let filter = PodSandboxFilter { label_selector: selector.clone(), ..Default::default() };
    let mut sandboxes = Vec::new();
    for found in runtime.list_pod_sandboxes(filter).await? {
        let Some(sandbox) = sandbox(runtime, &found.id).await? else { continue };
        sandboxes.push(sandbox);
    }
    sandboxes.sort_by_key(|s| std::cmp::Reverse((s.attempt, s.created_at)));
    let filter = ContainerFilter { label_selector: selector, ..Default::default() };
    let known: HashMap<&str, &Instance> = before
        .containers
        .iter()
        .filter(|c| c.state == State::Exited)
        .map(|c| (c.id.as_str(), c))
        .collect();
    let mut containers = Vec::new();
    for found in runtime.list_containers(filter).await? {
        if let Some(ended) = known.get(found.id.as_str()) {
            containers.push((*ended).clone());
            continue;
        }
        match runtime.container_status(&found.id, false).await {
            Ok(answer) => {
                let made =
                    answer.status.map(|s| instance(&shared.config, uid, s, &found.pod_sandbox_id));
                containers.extend(made);
            }
            Err(error) if error.code() == runtime::Code::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    containers.sort_by_key(|c| std::cmp::Reverse((c.attempt, c.created_at)));
    Ok(Observed { sandboxes, containers })
}

async fn sandbox(
    runtime: &dyn runtime::RuntimeService,
    id: &str,
) -> runtime::Result<Option<Sandbox>> {
    let status = match runtime.pod_sandbox_status(id, false).await {
        Ok(answer) => answer.status,
        Err(error) if error.code() == runtime::Code::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(status.map(|s| {
        let network = s.network.unwrap_or_default();
        let more = network.additional_ips.into_iter().map(|ip| ip.ip);
        Sandbox {
            id: s.id,
            attempt: s.metadata.map_or(0, |m| m.attempt),
            ready: s.state == PodSandboxState::Ready as i32,
            created_at: s.created_at,
            handler: s.runtime_handler,
            ips: std::iter::once(network.ip).chain(more).filter(|ip| !ip.is_empty()).collect(),
        }
    }))
}

fn instance(config: &KubeletConfig, uid: &str, status: ContainerStatus, sandbox: &str) -> Instance {
    let state = match ContainerState::try_from(status.state) {
        Ok(ContainerState::Created) => State::Created,
        Ok(ContainerState::Running) => State::Running,
        Ok(ContainerState::Exited) => State::Exited,
        _ => State::Unknown,
    };
    let note = |key: &str| status.annotations.get(key).cloned().unwrap_or_default();
    let metadata = status.metadata.clone().unwrap_or_default();
    let attempt = note(labels::RESTART_COUNT).parse().unwrap_or(metadata.attempt);
    let name = status.labels.get(labels::CONTAINER_NAME).cloned().unwrap_or(metadata.name);
    let message = match state {
        State::Exited => message(config, uid, &name, attempt, &status),
        _ => String::new(),
    };
    let signal = Signal::try_from(status.stop_signal).unwrap_or(Signal::RuntimeDefault);
    let user = status.user.as_ref().and_then(|u| u.linux.as_ref());
    Instance {
        name,
        sandbox: sandbox.to_owned(),
        attempt,
        state,
        created_at: status.created_at,
        started_at: status.started_at,
        finished_at: status.finished_at,
        exit_code: status.exit_code,
        reason: status.reason.clone(),
        message,
        image: status
            .image
            .clone()
            .map(
                |i| {
                    if i.user_specified_image.is_empty() { i.image } else { i.user_specified_image }
                },
            )
            .unwrap_or_default(),
        image_ref: status.image_ref.clone(),
        hash: note(labels::HASH),
        amounts: serde_json::from_str(&note(labels::AMOUNTS)).ok(),
        log_path: status.log_path.clone(),
        stop_signal: (signal != Signal::RuntimeDefault).then(|| signal.name()),
        user: user.map(|u| (u.uid, u.gid, u.supplemental_groups.clone())),
        id: status.id,
    }
}

/// What the runtime says of the end, and what the container itself said.
fn message(
    config: &KubeletConfig,
    uid: &str,
    name: &str,
    attempt: u32,
    status: &ContainerStatus,
) -> String {
    let own = last_words(config, uid, name, attempt, status);
    let parts = [status.message.as_str(), own.as_str()];
    parts.into_iter().filter(|p| !p.is_empty()).collect::<Vec<_>>().join(": ")
}

/// The end of the container's message file; if that is empty, the container failed and its policy
/// says so, the end of its log.
fn last_words(
    config: &KubeletConfig,
    uid: &str,
    name: &str,
    attempt: u32,
    status: &ContainerStatus,
) -> String {
    let note = |key: &str| status.annotations.get(key).map_or("", String::as_str);
    if !note(labels::MESSAGE_PATH).is_empty() {
        match volumes::message::read(&config.root_dir, uid, name, attempt) {
            Ok(Some(written)) if !written.is_empty() => {
                return String::from_utf8_lossy(&written).into_owned();
            }
            Ok(_) => {}
            Err(error) => return format!("Error on reading termination log: {error}"),
        }
    }
    // One that never started has no log.
    let from_log = note(labels::MESSAGE_POLICY) == "FallbackToLogsOnError"
        && status.exit_code != 0
        && !matches!(status.reason.as_str(), "ContainerCannotRun" | "StartError");
    if !from_log {
        return String::new();
    }
    let file = logs::open(&config.log_dir, std::path::Path::new(&status.log_path));
    let end = file.and_then(|mut file| {
        logs::last_lines(&mut file, MESSAGE_FROM_LOG_LINES, MESSAGE_FROM_LOG_BYTES)
    });
    end.unwrap_or_else(|e| format!("Error on reading termination message from logs: {e}"))
}
