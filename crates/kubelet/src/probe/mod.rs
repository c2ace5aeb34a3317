//! Probes: one task a probe and container instance, which tells the pod's actor changed verdicts.

mod grpc;
pub(crate) mod http;

use std::collections::HashMap;
use std::net::SocketAddr;
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
            let result = self.once().await;
            let healthy = result.is_ok();
            run = if last == Some(healthy) { run + 1 } else { 1 };
            last = Some(healthy);
            let output = result.err().unwrap_or_default();
            if !healthy {
                self.unhealthy(&output);
            }
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
                output,
            };
            if !self.handle.send(event) || self.kind == ProbeKind::Startup {
                return;
            }
        }
    }

    fn unhealthy(&self, output: &str) {
        let about = crate::pod::reference(&self.pod, &self.container.name);
        let text = format!("{} probe failed: {output}", self.kind.name());
        self.shared.recorder.event(&about, EventType::Warning, "Unhealthy", text);
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

    async fn once(&self) -> Result<(), String> {
        let limit = seconds(self.probe.timeout_seconds, 1);
        if self.probe.exec.is_some() {
            // The runtime keeps the time: it ends what it has started.
            return self.attempt(limit).await;
        }
        match tokio::time::timeout(limit, self.attempt(limit)).await {
            Ok(result) => result,
            Err(_) => Err(match &self.probe.http_get {
                Some(_) => "Get: context deadline exceeded (Client.Timeout exceeded while awaiting headers)".into(),
                None => "dial tcp: i/o timeout".into(),
            }),
        }
    }

    async fn attempt(&self, limit: Duration) -> Result<(), String> {
        let probe = &self.probe;
        if let Some(exec) = &probe.exec {
            let answer = exec::run(&self.shared, &self.instance, self.command(exec)?, limit).await;
            let answer = answer.map_err(|e| e.to_string())?;
            let mut output = answer.stdout;
            output.extend(answer.stderr);
            output.truncate(OUTPUT_MAX);
            return match answer.exit_code {
                0 => Ok(()),
                _ => Err(String::from_utf8_lossy(&output).into_owned()),
            };
        }
        if let Some(get) = &probe.http_get {
            let target = http::Target::of(get, &self.container, &self.ip)?;
            let answer =
                http::get(&self.shared, &target, &[("user-agent", "kube-probe/1.36")]).await?;
            return match answer.status {
                200..400 => Ok(()),
                code => Err(format!("HTTP probe failed with statuscode: {code}")),
            };
        }
        if let Some(tcp) = &probe.tcp_socket {
            let host = tcp.host.as_deref().filter(|h| !h.is_empty()).unwrap_or(&self.ip);
            let address = address(host, port(&tcp.port, &self.container)?)?;
            let dial = self.shared.dialer.tcp(address).await;
            return dial.map(drop).map_err(|e| format!("dial tcp {address}: connect: {e}"));
        }
        if let Some(action) = &probe.grpc {
            let number = u16::try_from(action.port).map_err(|e| e.to_string())?;
            let service = action.service.as_deref().unwrap_or("");
            return grpc::check(&self.shared, address(&self.ip, number)?, service).await;
        }
        Err("missing probe handler".into())
    }
}

pub(crate) fn address(host: &str, port: u16) -> Result<SocketAddr, String> {
    let ip = host.parse().map_err(|_| format!("\"{host}\" is not an IP address"))?;
    Ok(SocketAddr::new(ip, port))
}

/// A port by number, or by its name among the container's.
pub(crate) fn port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(n) => Some(*n),
        IntOrString::String(name) => name.parse().ok().or_else(|| {
            let mut all = container.ports.iter().flatten();
            all.find(|p| p.name.as_deref() == Some(name)).map(|p| p.container_port)
        }),
    };
    let number = number.and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0);
    number.ok_or_else(|| format!("invalid port: {port:?}"))
}
