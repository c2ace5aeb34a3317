//! `KubeletConfiguration` files: `--config` and the drop-in files of `--config-dir`.
//!
//! Every field of v1beta1 is obeyed, or refused by its name unless it says what this node does anyway. What
//! a flag can say becomes that flag, so that one given on the command line wins, as in upstream.

mod fields;
mod shutdown;

use std::path::{Path, PathBuf};
use std::time::Duration;

use ::kubelet::{KubeletConfig, ShutdownPeriod};
use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};

use super::{placement, reserved};
use fields::FIELDS;
use fields::Rule::{Direct, Flag, List, Only, Pace};

const KIND: &str = "KubeletConfiguration";
const VERSION: &str = "kubelet.config.k8s.io/v1beta1";
const DROP_IN: &str = "conf";
/// Longest file that is read.
const FILE_MAX: u64 = 1 << 20;

/// What files say.
#[derive(Debug, Default)]
pub(super) struct Settings {
    /// Flags with their values.
    flags: Vec<(&'static str, String)>,
    rest: Rest,
}

/// What no flag says.
#[derive(Debug, Default, PartialEq)]
struct Rest {
    log_dir: Option<PathBuf>,
    resolv_conf: Option<PathBuf>,
    provider_id: Option<String>,
    register_node: Option<bool>,
    status_update: Option<Duration>,
    status_report: Option<Duration>,
    lease: Option<Duration>,
    upkeep: Option<Duration>,
    image_min_age: Option<Duration>,
    image_max_age: Option<Duration>,
    merge_eviction: bool,
    pods_per_core: Option<u32>,
    /// `None` in it: all images.
    status_images: Option<Option<usize>>,
    restart_max: Option<Duration>,
    limited_swap: bool,
    pids_max: Option<u64>,
    seccomp_default: bool,
    tracing: Option<traces::Configuration>,
    shutdown: Option<Duration>,
    shutdown_critical: Option<Duration>,
    shutdown_by_priority: Vec<ShutdownPeriod>,
}

/// What a field has that nobody has set.
fn is_unset(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty() || text == "0s",
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.values().all(is_unset),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A duration as Go writes it: `1h30m`, `10s`, `100ms`.
fn duration(text: &str) -> Option<Duration> {
    let mut left = text;
    let mut seconds = 0.0;
    while !left.is_empty() {
        let end = left.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let (number, rest) = left.split_at(end);
        let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let (unit, rest) = rest.split_at(end);
        let scale = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        seconds += number.parse::<f64>().ok()? * scale;
        left = rest;
    }
    (!text.is_empty()).then(|| Duration::try_from_secs_f64(seconds).ok()).flatten()
}

/// Reads the file and then the drop-in files, in the order of their names.
pub(super) fn read(file: Option<&Path>, folder: Option<&Path>) -> Result<Settings> {
    let mut all = match file {
        Some(file) => document(file)?,
        None => Map::new(),
    };
    if let Some(folder) = folder {
        for file in drop_ins(folder)? {
            merge(&mut all, document(&file)?);
        }
    }
    Settings::of(&all)
}

fn drop_ins(folder: &Path) -> Result<Vec<PathBuf>> {
    let list = std::fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))?;
    let mut files = Vec::new();
    for entry in list {
        let path = entry.with_context(|| format!("list {}", folder.display()))?.path();
        if path.extension().is_some_and(|e| e == DROP_IN) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn document(file: &Path) -> Result<Map<String, Value>> {
    let shown = file.display();
    let length = std::fs::metadata(file).with_context(|| format!("read {shown}"))?.len();
    if length > FILE_MAX {
        bail!("{shown} is longer than {FILE_MAX} bytes");
    }
    let content = std::fs::read_to_string(file).with_context(|| format!("read {shown}"))?;
    parse(&content).with_context(|| shown.to_string())
}

fn parse(content: &str) -> Result<Map<String, Value>> {
    let value: Value = serde_yaml_ng::from_str(content).context("not YAML")?;
    let Value::Object(mut map) = value else { bail!("not an object") };
    let kind = map.remove("kind").unwrap_or_default();
    let version = map.remove("apiVersion").unwrap_or_default();
    if kind != KIND || version != VERSION {
        bail!("expected kind {KIND} of {VERSION}, found {kind} of {version}");
    }
    Ok(map)
}

/// Objects are joined; everything else is replaced.
fn merge(into: &mut Map<String, Value>, from: Map<String, Value>) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Object(old)), Value::Object(new)) => merge(old, new),
            (_, value) => drop(into.insert(key, value)),
        }
    }
}

/// Takes an object apart down to the names that [`FIELDS`] has.
fn flatten(prefix: &str, map: &Map<String, Value>, out: &mut Vec<(String, Value)>) {
    for (key, value) in map {
        let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        let known = FIELDS.iter().any(|(field, _)| *field == name);
        match value {
            Value::Object(inner) if !known && !inner.is_empty() => flatten(&name, inner, out),
            value => out.push((name, value.clone())),
        }
    }
}

impl Settings {
    fn of(all: &Map<String, Value>) -> Result<Settings> {
        let mut settings = Settings::default();
        let mut fields = Vec::new();
        flatten("", all, &mut fields);
        for (name, value) in fields {
            if is_unset(&value) {
                continue;
            }
            let rule = FIELDS.iter().find(|(field, _)| *field == name).map(|(_, rule)| rule);
            match rule {
                None => bail!("{KIND} has no field {name}"),
                Some(Flag(flag)) => settings.flags.push((flag, text(&value))),
                Some(List(flag)) => {
                    let list = value.as_array().with_context(|| format!("{name} is no list"))?;
                    let words: Vec<String> = list.iter().map(text).collect();
                    settings.flags.push((flag, words.join(",")));
                }
                Some(Direct) => {
                    settings.direct(&name, &value).with_context(|| format!("{name}: {value}"))?;
                }
                Some(Only(values)) => only(&name, &value, values)?,
                Some(Pace) => tracing::info!(field = name, %value, "has no effect on this node"),
            }
        }
        settings.rest.check_shutdown()?;
        Ok(settings)
    }

    fn direct(&mut self, name: &str, value: &Value) -> Result<()> {
        let word = || value.as_str().map(str::to_owned).context("expected text");
        let time = || -> Result<Option<Duration>> {
            let parsed = value.as_str().and_then(duration);
            Ok(Some(parsed.filter(|d| !d.is_zero()).context("expected a duration such as 10s")?))
        };
        let rest = &mut self.rest;
        match name {
            "podLogsDir" => rest.log_dir = Some(word()?.into()),
            "resolvConf" => rest.resolv_conf = Some(word()?.into()),
            "providerID" => rest.provider_id = Some(word()?),
            "registerNode" => {
                rest.register_node = Some(value.as_bool().context("expected true or false")?);
            }
            "nodeStatusUpdateFrequency" => rest.status_update = time()?,
            "nodeStatusReportFrequency" => rest.status_report = time()?,
            "containerLogMonitorInterval" => rest.upkeep = time()?,
            "nodeLeaseDurationSeconds" => {
                let seconds = value.as_u64().filter(|n| *n > 0).context("expected seconds")?;
                rest.lease = Some(Duration::from_secs(seconds));
            }
            "shutdownGracePeriod"
            | "shutdownGracePeriodCriticalPods"
            | "shutdownGracePeriodByPodPriority" => rest.set_shutdown(name, value, time)?,
            "memorySwap.swapBehavior" => {
                rest.limited_swap = match word()?.as_str() {
                    "NoSwap" => false,
                    "LimitedSwap" => true,
                    _ => bail!("must be one of: \"\", \"LimitedSwap\" or \"NoSwap\""),
                }
            }
            "tracing" => {
                let read = traces::from_fields(value, name);
                rest.tracing = Some(read.map_err(|faults| anyhow::anyhow!(faults.join(", ")))?);
            }
            "podPidsLimit" => rest.pids_max = pids_max(value)?,
            "seccompDefault" => {
                rest.seccomp_default = value.as_bool().context("expected true or false")?;
            }
            "imageMinimumGCAge" => rest.image_min_age = time()?,
            "imageMaximumGCAge" => rest.image_max_age = time()?,
            "mergeDefaultEvictionSettings" => {
                rest.merge_eviction = value.as_bool().context("expected true or false")?;
            }
            "podsPerCore" => rest.pods_per_core = Some(count(value)?),
            "nodeStatusMaxImages" => rest.status_images = Some(status_images(value)?),
            "crashLoopBackOff.maxContainerRestartPeriod" => {
                rest.restart_max = time()?;
                let whole = Duration::from_secs(1)..=Duration::from_secs(300);
                if !rest.restart_max.is_some_and(|max| whole.contains(&max)) {
                    bail!("must be between 1s and 300s");
                }
            }
            _ => return self.as_flags(name, value),
        }
        Ok(())
    }

    /// Fields that are flags in another form.
    fn as_flags(&mut self, name: &str, value: &Value) -> Result<()> {
        match name {
            "kubeReserved" => self.flags.push(reserved::resources("kube-reserved", value)?),
            "systemReserved" => self.flags.push(reserved::resources("system-reserved", value)?),
            "evictionHard" => self.flags.push(("eviction-hard", by_signal(value, '<')?)),
            "evictionSoft" => self.flags.push(("eviction-soft", by_signal(value, '<')?)),
            "evictionSoftGracePeriod" => {
                self.flags.push(("eviction-soft-grace-period", by_signal(value, '=')?));
            }
            "evictionMinimumReclaim" => {
                self.flags.push(("eviction-minimum-reclaim", by_signal(value, '=')?));
            }
            "registerWithTaints" => self.flags.push(("register-with-taints", taints(value)?)),
            "staticPodURLHeader" => self.flags.extend(url_headers(value)?),
            "cpuManagerPolicyOptions" => {
                self.flags.extend(placement::options("cpu-manager-policy-options", value)?);
            }
            "topologyManagerPolicyOptions" => {
                self.flags.extend(placement::options("topology-manager-policy-options", value)?);
            }
            "reservedMemory" => self.flags.extend(placement::reservations(value)?),
            "featureGates" => gates(value)?,
            _ => bail!("no such field"),
        }
        Ok(())
    }

    /// The command line with what the files say before it, but for what it says itself.
    pub(super) fn arguments(&self, given: &[String]) -> Vec<String> {
        let is_given = |flag: &str| {
            let (bare, with_value) = (format!("--{flag}"), format!("--{flag}="));
            given.iter().any(|word| *word == bare || word.starts_with(&with_value))
        };
        let own = self.flags.iter().filter(|(flag, _)| !is_given(flag));
        let own = own.map(|(flag, value)| format!("--{flag}={value}"));
        own.chain(given.iter().cloned()).collect()
    }

    /// Where traces go, if they are wanted.
    pub(super) fn tracing(&self) -> Option<&traces::Configuration> {
        self.rest.tracing.as_ref()
    }

    pub(super) fn apply(self, config: &mut KubeletConfig) {
        fn set<T>(to: &mut T, from: Option<T>) {
            if let Some(value) = from {
                *to = value;
            }
        }
        let rest = self.rest;
        config.shutdown = rest.shutdown();
        set(&mut config.log_dir, rest.log_dir);
        set(&mut config.resolv_conf, rest.resolv_conf);
        set(&mut config.register_node, rest.register_node);
        set(&mut config.status_update_interval, rest.status_update);
        set(&mut config.status_report_interval, rest.status_report);
        set(&mut config.lease_duration, rest.lease);
        set(&mut config.upkeep_interval, rest.upkeep);
        set(&mut config.image_min_age, rest.image_min_age);
        config.image_max_age = rest.image_max_age;
        config.pod_pids_max = rest.pids_max;
        config.seccomp_default = rest.seccomp_default;
        config.limited_swap = rest.limited_swap;
        set(&mut config.status_images, rest.status_images);
        set(&mut config.restart_max, rest.restart_max);
        config.max_pods = pods(config.max_pods, rest.pods_per_core.unwrap_or(0));
        if rest.merge_eviction {
            config.eviction.hard = std::mem::take(&mut config.eviction.hard).with_defaults();
        }
        config.provider_id = rest.provider_id.or(config.provider_id.take());
    }
}

fn only(name: &str, value: &Value, values: &[&str]) -> Result<()> {
    let found = text(value);
    if values.contains(&found.as_str()) {
        return Ok(());
    }
    match values.first() {
        Some(only) => bail!("{KIND}: {name}: {found} is not supported by this node, only {only}"),
        None => bail!("{KIND}: {name} is not supported by this node"),
    }
}

pub(crate) fn millis(text: &str) -> Option<u64> {
    match text.strip_suffix('m') {
        Some(millis) => millis.parse().ok(),
        None => {
            let cpus: f64 = text.parse().ok().filter(|n: &f64| (0.0..1e6).contains(n))?;
            // Far from the limits of exactness.
            Some((cpus * 1000.0).ceil() as u64)
        }
    }
}

fn by_signal(value: &Value, between: char) -> Result<String> {
    let map = value.as_object().context("expected values by signal")?;
    let words: Vec<String> =
        map.iter().map(|(signal, value)| format!("{signal}{between}{}", text(value))).collect();
    Ok(words.join(","))
}

fn count(value: &Value) -> Result<u32> {
    let number = value.as_u64().and_then(|n| u32::try_from(n).ok());
    number.context("expected a number that is not negative")
}

/// Nothing above zero is no limit.
fn pids_max(value: &Value) -> Result<Option<u64>> {
    let number = value.as_i64().context("expected a number")?;
    Ok(u64::try_from(number).ok().filter(|most| *most > 0))
}

/// -1 is no limit.
fn status_images(value: &Value) -> Result<Option<usize>> {
    match value.as_i64() {
        Some(-1) => Ok(None),
        Some(n) if n >= 0 => Ok(usize::try_from(n).ok()),
        _ => bail!("expected -1 or a number that is not negative"),
    }
}

/// Zero is no limit.
fn pods(max: u32, per_core: u32) -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    let cores = u32::try_from(cores).unwrap_or(u32::MAX);
    if per_core == 0 { max } else { max.min(per_core.saturating_mul(cores)) }
}

fn taints(value: &Value) -> Result<String> {
    let list = value.as_array().context("expected a list")?;
    let word = |taint: &Value| {
        let part = |name: &str| taint[name].as_str().unwrap_or_default().to_owned();
        let value = Some(part("value")).filter(|v| !v.is_empty());
        let value = value.map(|v| format!("={v}")).unwrap_or_default();
        format!("{}{value}:{}", part("key"), part("effect"))
    };
    Ok(list.iter().map(word).collect::<Vec<_>>().join(","))
}

/// One flag for each value of each header.
fn url_headers(value: &Value) -> Result<Vec<(&'static str, String)>> {
    let mut flags = Vec::new();
    for (name, values) in value.as_object().context("expected values by header")? {
        for value in values.as_array().with_context(|| format!("{name}: expected a list"))? {
            let value = value.as_str().with_context(|| format!("{name}: expected text"))?;
            flags.push(("manifest-url-header", format!("{name}:{value}")));
        }
    }
    Ok(flags)
}

/// Gates are what they are in v1.36 by default; to say so is no error, to want otherwise is.
fn gates(value: &Value) -> Result<()> {
    const ON: &[&str] = &[
        "ContainerRestartRules",
        "DRAAdminAccess",
        "DRAExtendedResource",
        "DynamicResourceAllocation",
        "EnvFiles",
        "ImageVolume",
        "InPlacePodLevelResourcesVerticalScaling",
        "InPlacePodVerticalScaling",
        "KubeletEnsureSecretPulledImages",
        "KubeletFineGrainedAuthz",
        "KubeletPodResourcesDynamicResources",
        "KubeletPodResourcesGet",
        "KubeletPodResourcesListUseActivePods",
        "KubeletServiceAccountTokenForCredentialProviders",
        "NodeDeclaredFeatures",
        "PodLevelResources",
        "ResourceHealthStatus",
        "ResourceHealthStatusMessage",
        "RestartAllContainersOnContainerExits",
        "SidecarContainers",
        "SupplementalGroupsPolicy",
        "UserNamespacesSupport",
    ];
    for (gate, wanted) in value.as_object().context("expected gates")? {
        let on = ON.contains(&gate.as_str());
        if *wanted != Value::Bool(on) {
            bail!("gate {gate} cannot be {wanted} on this node");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
