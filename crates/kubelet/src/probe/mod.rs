//! Probes: one task a probe and container instance, which tells the pod's actor changed verdicts.

pub(crate) mod counts;
mod dial;
mod grpc;
pub(crate) mod http;
mod url;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use client::{EventType, Tasks};
use k8s_openapi::api::core::v1::{Container, ExecAction, Pod, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::exec;
use crate::kubelet::Shared;
use crate::pod::memory::Memory;
use crate::pod::observed::{Observed, State};
use crate::pod::{Event, Handle};
use crate::spec::expand::expand;
use crate::spec::{find_container, is_host_network, is_sidecar, spec_of};

/// Longest output kept in an event.
const OUTPUT_MAX: usize = 10 << 10;
/// Times that a probe is tried which does not come to a result (upstream's).
const TRIES: usize = 3;

/// What one probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    Healthy,
    /// Healthy, and something to be told.
    Warning(String),
    Unhealthy(String),
    /// It came to no result, which counts as unhealthy; `state` is upstream's name of what that is.
    Errored {
        state: &'static str,
        why: String,
    },
}

impl Verdict {
    fn unknown(why: impl Into<String>) -> Verdict {
        Verdict::Errored { state: "unknown", why: why.into() }
    }

    fn of(result: Result<(), String>) -> Verdict {
        result.map_or_else(Verdict::Unhealthy, |()| Verdict::Healthy)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ProbeKind {
    Startup,
    Readiness,
    Liveness,
}

impl ProbeKind {
    const ALL: [ProbeKind; 3] = [ProbeKind::Startup, ProbeKind::Readiness, ProbeKind::Liveness];

    fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            ProbeKind::Startup => container.startup_probe.as_ref(),
            ProbeKind::Readiness => container.readiness_probe.as_ref(),
            ProbeKind::Liveness => container.liveness_probe.as_ref(),
        }
    }

    fn name(self) -> &'static str {
        match self {
            ProbeKind::Startup => "Startup",
            ProbeKind::Readiness => "Readiness",
            ProbeKind::Liveness => "Liveness",
        }
    }
}

/// The running probes of one pod.
pub(crate) struct Probers {
    shared: Arc<Shared>,
    tasks: Tasks,
    handle: Handle,
    running: HashMap<(String, ProbeKind), (String, Tasks)>,
}

impl Drop for Probers {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

/// What a probe task works on.
struct Job {
    shared: Arc<Shared>,
    handle: Handle,
    pod: Pod,
    container: Container,
    instance: String,
    ip: String,
    kind: ProbeKind,
    probe: Probe,
}

impl Probers {
    pub(crate) fn new(shared: Arc<Shared>, tasks: Tasks, handle: Handle) -> Probers {
        Probers { shared, tasks, handle, running: HashMap::new() }
    }

    /// Starts and stops probes so that they fit the running instances.
    pub(crate) fn align(&mut self, pod: &Pod, seen: &Observed, memory: &Memory, ending: bool) {
        let wanted = wanted(pod, seen, memory, ending);
        self.running.retain(|key, (instance, tasks)| {
            let keep = wanted.iter().any(|(k, i)| k == key && i == instance);
            if !keep {
                tasks.cancel();
            }
            keep
        });
        let spec = spec_of(pod);
        let node = self.shared.config.node_ips.first().map(ToString::to_string);
        let own = if is_host_network(pod) { node } else { memory.ips.first().cloned() };
        for (key, instance) in wanted {
            if self.running.contains_key(&key) {
                continue;
            }
            let found = spec.containers.iter().chain(spec.init_containers.iter().flatten());
            let Some(container) = found.into_iter().find(|c| c.name == key.0) else { continue };
            let Some(probe) = key.1.of(container) else { continue };
            let job = Job {
                shared: self.shared.clone(),
                handle: self.handle.clone(),
                pod: pod.clone(),
                container: container.clone(),
                instance: instance.clone(),
                ip: own.clone().unwrap_or_default(),
                kind: key.1,
                probe: probe.clone(),
            };
            let tasks = self.tasks.child();
            tasks.spawn("probe", job.run());
            self.running.insert(key, (instance, tasks));
        }
    }
}

type Wanted = Vec<((String, ProbeKind), String)>;

fn wanted(pod: &Pod, seen: &Observed, memory: &Memory, ending: bool) -> Wanted {
    let mut out = Vec::new();
    for i in seen.containers.iter().filter(|i| i.state == State::Running) {
        let Some(c) = find_container(pod, &i.name).filter(|_| !memory.is_starting(&i.name)) else {
            continue;
        };
        let verdicts = memory.containers.get(&i.name).map(|m| &m.verdicts);
        let started = verdicts.filter(|v| v.instance == i.id).and_then(|v| v.started);
        let init = spec_of(pod).init_containers.iter().flatten().any(|x| x.name == i.name);
        if init && !is_sidecar(&c) {
            continue;
        }
        let waiting = c.startup_probe.is_some() && started != Some(true);
        for kind in ProbeKind::ALL {
            let due = match kind {
                ProbeKind::Startup => started.is_none() && !ending,
                ProbeKind::Liveness => !waiting && !ending,
                ProbeKind::Readiness => !waiting,
            };
            if due && kind.of(&c).is_some() {
                out.push(((i.name.clone(), kind), i.id.clone()));
            }
        }
    }
    out
}

fn seconds(value: Option<i32>, default: u64) -> Duration {
    let given = value.and_then(|v| u64::try_from(v).ok()).filter(|v| *v > 0);
    Duration::from_secs(given.unwrap_or(default))
}

impl Job {
    async fn run(self) {
        tokio::time::sleep(seconds(self.probe.initial_delay_seconds, 0)).await;
        let mut ticks = tokio::time::interval(seconds(self.probe.period_seconds, 10));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let threshold = |v: Option<i32>, d: i32| v.filter(|v| *v > 0).unwrap_or(d);
        let fails = threshold(self.probe.failure_threshold, 3);
        let successes = threshold(self.probe.success_threshold, 1);
        let (mut told, mut last, mut run) = (None, None, 0);
        loop {
            ticks.tick().await;
            let begun = std::time::Instant::now();
            let verdict = self.try_often().await;
            self.count(&verdict, begun.elapsed());
            self.tell(&verdict);
            let healthy = matches!(verdict, Verdict::Healthy | Verdict::Warning(_));
            run = if last == Some(healthy) { run + 1 } else { 1 };
            last = Some(healthy);
            let needed = if healthy { successes } else { fails };
            if run < needed || told == Some(healthy) {
                continue;
            }
            told = Some(healthy);
            let event = Event::Probe {
                container: self.container.name.clone(),
                instance: self.instance.clone(),
                kind: self.kind,
                healthy,
            };
            if !self.handle.send(event) || self.kind == ProbeKind::Startup {
                return;
            }
        }
    }

    fn count(&self, verdict: &Verdict, took: Duration) {
        let result = match verdict {
            Verdict::Healthy | Verdict::Warning(_) => counts::Result::Successful,
            Verdict::Unhealthy(_) => counts::Result::Failed,
            Verdict::Errored { .. } => counts::Result::Unknown,
        };
        let probed = counts::Probed {
            pod_uid: crate::spec::uid_of(&self.pod).to_owned(),
            namespace: crate::spec::namespace_of(&self.pod).to_owned(),
            pod: crate::spec::name_of(&self.pod).to_owned(),
            container: self.container.name.clone(),
            kind: self.kind.name(),
        };
        self.shared.probes.add(probed, result, took);
    }

    /// The event of a verdict that has one.
    fn tell(&self, verdict: &Verdict) {
        let name = self.kind.name();
        let (reason, text) = match verdict {
            Verdict::Healthy => return,
            Verdict::Warning(why) => ("ProbeWarning", format!("{name} probe warning: {why}")),
            Verdict::Unhealthy(why) => ("Unhealthy", format!("{name} probe failed: {why}")),
            Verdict::Errored { state, why } => {
                ("Unhealthy", format!("{name} probe errored and resulted in {state} state: {why}"))
            }
        };
        let about = crate::pod::reference(&self.pod, &self.container.name);
        self.shared.recorder.event(&about, EventType::Warning, reason, text);
    }

    /// With references to variables that are written out in the spec.
    fn command(&self, exec: &ExecAction) -> Result<Vec<String>, String> {
        let lookup = |name: &str| {
            let mut all = self.container.env.iter().flatten().rev();
            let found = all.find(|e| e.name == name && e.value_from.is_none())?;
            Some(found.value.clone().unwrap_or_default())
        };
        let words = exec.command.iter().flatten().map(|word| expand(word, lookup));
        words.collect::<Result<_, _>>().map_err(|_| "the command is too long".to_owned())
    }

    async fn try_often(&self) -> Verdict {
        let mut verdict = self.once().await;
        for _ in 1..TRIES {
            if !matches!(verdict, Verdict::Errored { .. }) {
                break;
            }
            verdict = self.once().await;
        }
        verdict
    }

    async fn once(&self) -> Verdict {
        let limit = seconds(self.probe.timeout_seconds, 1);
        let probe = &self.probe;
        let dialer = &*self.shared.dialer;
        if let Some(action) = &probe.exec {
            return self.exec(action, limit).await;
        }
        if let Some(action) = &probe.http_get {
            return match http::Target::of(action, &self.container, &self.ip, "probe") {
                Ok(target) => http_verdict(http::get(dialer, &target, limit).await),
                Err(why) => Verdict::unknown(why),
            };
        }
        if let Some(action) = &probe.tcp_socket {
            let host = action.host.as_deref().filter(|h| !h.is_empty()).unwrap_or(&self.ip);
            let number = match port(&action.port, &self.container) {
                Ok(number) => number,
                Err(why) => return Verdict::unknown(why),
            };
            let dialled = tokio::time::timeout(limit, dial::tcp(dialer, host, number)).await;
            let late = || Err(format!("dial tcp {}: i/o timeout", dial::join(host, number)));
            return Verdict::of(dialled.map_or_else(|_| late(), |d| d.map(drop)));
        }
        if let Some(action) = &probe.grpc {
            let Ok(number) = u16::try_from(action.port) else {
                return Verdict::unknown(format!("invalid port number: {}", action.port));
            };
            let service = action.service.as_deref().unwrap_or("");
            return Verdict::of(grpc::check(dialer, (&self.ip, number), service, limit).await);
        }
        let pod = crate::spec::described(&self.pod);
        Verdict::unknown(format!("missing probe handler for {pod}:{}", self.container.name))
    }

    /// The runtime keeps the time: it ends what it has started.
    async fn exec(&self, action: &ExecAction, limit: Duration) -> Verdict {
        let command = match self.command(action) {
            Ok(command) => command,
            Err(why) => return Verdict::unknown(why),
        };
        match exec::run(&self.shared, &self.instance, command, limit).await {
            Ok(answer) if answer.exit_code == 0 => Verdict::Healthy,
            Ok(answer) => {
                let mut output = answer.stdout;
                output.extend(answer.stderr);
                output.truncate(OUTPUT_MAX);
                Verdict::Unhealthy(String::from_utf8_lossy(&output).into_owned())
            }
            Err(error @ exec::ExecError::TimedOut { .. }) => Verdict::Unhealthy(error.to_string()),
            Err(error) => Verdict::unknown(error.to_string()),
        }
    }
}

fn http_verdict(answer: Result<http::Answer, http::Failure>) -> Verdict {
    match answer {
        Ok(http::Answer { status: 200..300, .. }) => Verdict::Healthy,
        Ok(http::Answer { status: 300..400, body, .. }) => {
            Verdict::Warning(format!("Probe terminated redirects, Response body: {body}"))
        }
        Ok(http::Answer { status, .. }) => {
            Verdict::Unhealthy(format!("HTTP probe failed with statuscode: {status}"))
        }
        Err(http::Failure::Request(why)) => Verdict::Unhealthy(why),
        Err(http::Failure::Body(why)) => Verdict::Errored { state: "failure", why },
    }
}

/// A port by number, or by its name among the container's.
pub(crate) fn port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(n) => i64::from(*n),
        IntOrString::String(name) => {
            let mut all = container.ports.iter().flatten();
            let named = all.find(|p| p.name.as_deref() == Some(name));
            match named {
                Some(port) => i64::from(port.container_port),
                None => name
                    .parse()
                    .map_err(|_| format!("strconv.Atoi: parsing {name:?}: invalid syntax"))?,
            }
        }
    };
    let valid = u16::try_from(number).ok().filter(|n| *n > 0);
    valid.ok_or_else(|| format!("invalid port number: {number}"))
}
