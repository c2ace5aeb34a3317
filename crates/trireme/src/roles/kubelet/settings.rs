//! `KubeletConfiguration` files: `--config` and the drop-in files of `--config-dir`.
//!
//! Every field of v1beta1 is obeyed, or refused by its name unless it says what this node does anyway. What
//! a flag can say becomes that flag, so that one given on the command line wins, as in upstream.

mod fields;

use std::path::{Path, PathBuf};
use std::time::Duration;

use ::kubelet::{Amount, KubeletConfig};
use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};

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
    /// Thousandths of a CPU, and bytes.
    reserved: Option<(u64, u64)>,
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
            "kubeReserved" | "systemReserved" => {
                let (cpu, memory) = rest.reserved.unwrap_or_default();
                let (more_cpu, more_memory) = reserved(value)?;
                rest.reserved = Some((cpu + more_cpu, memory + more_memory));
            }
            "evictionHard" => self.flags.push(("eviction-hard", eviction(value)?)),
            "registerWithTaints" => self.flags.push(("register-with-taints", taints(value)?)),
            "staticPodPath" => no_manifests(Path::new(&word()?))?,
            "featureGates" => gates(value)?,
            "enforceNodeAllocatable" => allocatable(value)?,
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

    pub(super) fn apply(self, config: &mut KubeletConfig) {
        fn set<T>(to: &mut T, from: Option<T>) {
            if let Some(value) = from {
                *to = value;
            }
        }
        let rest = self.rest;
        set(&mut config.log_dir, rest.log_dir);
        set(&mut config.resolv_conf, rest.resolv_conf);
        set(&mut config.register_node, rest.register_node);
        set(&mut config.status_update_interval, rest.status_update);
        set(&mut config.status_report_interval, rest.status_report);
        set(&mut config.lease_duration, rest.lease);
        set(&mut config.upkeep_interval, rest.upkeep);
        config.provider_id = rest.provider_id.or(config.provider_id.take());
        if let Some((cpu, memory)) = rest.reserved {
            config.reserved_cpu_millis += cpu;
            config.reserved_memory_bytes += memory;
        }
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

/// CPU and memory; other resources cannot be kept back here.
fn reserved(value: &Value) -> Result<(u64, u64)> {
    let (mut cpu, mut memory) = (0, 0);
    for (resource, amount) in value.as_object().context("expected resources")? {
        let bad = || format!("{resource}: {amount} is no quantity");
        match resource.as_str() {
            "cpu" => cpu = millis(&text(amount)).with_context(bad)?,
            "memory" => match Amount::parse(&text(amount)) {
                Some(Amount::Bytes(bytes)) => memory = bytes,
                _ => bail!(bad()),
            },
            other => bail!("{other} cannot be reserved on this node, only cpu and memory"),
        }
    }
    Ok((cpu, memory))
}

fn millis(text: &str) -> Option<u64> {
    match text.strip_suffix('m') {
        Some(millis) => millis.parse().ok(),
        None => {
            let cpus: f64 = text.parse().ok().filter(|n: &f64| (0.0..1e6).contains(n))?;
            // Far from the limits of exactness.
            Some((cpus * 1000.0).ceil() as u64)
        }
    }
}

fn eviction(value: &Value) -> Result<String> {
    let map = value.as_object().context("expected thresholds by signal")?;
    let words: Vec<String> = map.iter().map(|(k, v)| format!("{k}<{}", text(v))).collect();
    Ok(words.join(","))
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

/// kubeadm names the folder on every node, whether anything is in it or not.
fn no_manifests(folder: &Path) -> Result<()> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let hidden = |entry: &std::fs::DirEntry| entry.file_name().as_encoded_bytes().starts_with(b".");
    match entries.into_iter().find(|entry| !hidden(entry)) {
        Some(entry) => bail!("{}: static pods are not supported", entry.path().display()),
        None => Ok(()),
    }
}

/// Gates are what they are in v1.36 by default; to say so is no error, to want otherwise is.
fn gates(value: &Value) -> Result<()> {
    const ON: &[&str] = &[
        "ContainerRestartRules",
        "EnvFiles",
        "ImageVolume",
        "InPlacePodLevelResourcesVerticalScaling",
        "InPlacePodVerticalScaling",
        "KubeletEnsureSecretPulledImages",
        "KubeletFineGrainedAuthz",
        "NodeDeclaredFeatures",
        "PodLevelResources",
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

fn allocatable(value: &Value) -> Result<()> {
    let list = value.as_array().context("expected a list")?;
    match list.iter().find(|word| !matches!(word.as_str(), Some("pods" | "none"))) {
        Some(other) => bail!("{other} is not supported by this node, only pods"),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
