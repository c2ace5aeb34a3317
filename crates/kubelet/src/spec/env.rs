//! A container's environment: service links, `envFrom`, `env` with its sources, `$(NAME)` expansion.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::{
    ConfigMap, Container, EnvVarSource, FileKeySelector, Pod, Secret, Service,
};

use super::downward::{self, Addresses};
use super::expand::{STRING_MAX, expand};
use super::resources::NodeResources;
use super::{ConfigError, env_file, namespace_of, spec_of};

/// Most bytes of an environment: the kernel takes no more with any stack limit.
const ENVIRONMENT_MAX: usize = 6 << 20;

/// Objects that environments refer to, fetched beforehand; `None`: it does not exist.
#[derive(Debug, Default)]
pub(crate) struct References {
    pub(crate) config_maps: HashMap<String, Option<ConfigMap>>,
    pub(crate) secrets: HashMap<String, Option<Secret>>,
    /// By volume and path: the path on the host, and what is in the file.
    pub(crate) files: HashMap<(String, String), EnvFile>,
}

/// A file that `fileKeyRef` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EnvFile {
    pub(crate) shown: String,
    pub(crate) content: Result<Vec<u8>, ConfigError>,
}

/// What the environment depends on.
pub(crate) struct Inputs<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) container: &'a Container,
    pub(crate) services: &'a [ServiceLink],
    pub(crate) references: &'a References,
    pub(crate) addresses: &'a Addresses,
    pub(crate) node: &'a NodeResources,
}

/// A service as environments show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServiceLink {
    name: String,
    ip: String,
    /// Name, number, protocol in lower case.
    ports: Vec<(String, i32, String)>,
}

/// Names of config maps and secrets that the container's environment needs.
pub(crate) fn needed(container: &Container) -> (Vec<String>, Vec<String>) {
    let (mut maps, mut secrets) = (Vec::new(), Vec::new());
    for from in container.env_from.iter().flatten() {
        maps.extend(from.config_map_ref.as_ref().map(|r| r.name.clone()));
        secrets.extend(from.secret_ref.as_ref().map(|r| r.name.clone()));
    }
    for source in container.env.iter().flatten().filter_map(|e| e.value_from.as_ref()) {
        maps.extend(source.config_map_key_ref.as_ref().map(|r| r.name.clone()));
        secrets.extend(source.secret_key_ref.as_ref().map(|r| r.name.clone()));
    }
    maps.sort();
    maps.dedup();
    secrets.sort();
    secrets.dedup();
    (maps, secrets)
}

/// Volumes and paths of the files that the container's environment needs.
pub(crate) fn needed_files(container: &Container) -> Vec<(String, String)> {
    let sources = container.env.iter().flatten().filter_map(|e| e.value_from.as_ref());
    let mut files: Vec<_> = sources
        .filter_map(|s| s.file_key_ref.as_ref())
        .map(|r| (r.volume_name.clone(), r.path.clone()))
        .collect();
    files.sort();
    files.dedup();
    files
}

/// The services a pod sees: those of its namespace, and `kubernetes` of `default`.
pub(crate) fn visible<'a>(
    pod: &Pod,
    services: impl Iterator<Item = &'a Service>,
) -> Vec<ServiceLink> {
    let namespace = namespace_of(pod);
    let all_links = spec_of(pod).enable_service_links.unwrap_or(true);
    let mut chosen: BTreeMap<String, ServiceLink> = BTreeMap::new();
    for service in services {
        let (ns, name) = (&service.metadata.namespace, &service.metadata.name);
        let (ns, name) = (ns.as_deref().unwrap_or(""), name.as_deref().unwrap_or(""));
        let master = ns == "default" && name == "kubernetes";
        if (ns == namespace && all_links) || (master && !chosen.contains_key(name)) {
            chosen.extend(link(service).map(|l| (name.to_owned(), l)));
        }
    }
    chosen.into_values().collect()
}

fn link(service: &Service) -> Option<ServiceLink> {
    let spec = service.spec.as_ref()?;
    let ip = spec.cluster_ip.clone().filter(|ip| !ip.is_empty() && ip != "None")?;
    let ports = spec.ports.iter().flatten().map(|p| {
        let protocol = p.protocol.as_deref().unwrap_or("TCP").to_lowercase();
        (p.name.clone().unwrap_or_default(), p.port, protocol)
    });
    Some(ServiceLink { name: service.metadata.name.clone()?, ip, ports: ports.collect() })
}

fn variable(text: &str) -> String {
    text.replace('-', "_").to_uppercase()
}

fn link_variables(link: &ServiceLink, out: &mut Vec<(String, String)>) {
    let prefix = variable(&link.name);
    out.push((format!("{prefix}_SERVICE_HOST"), link.ip.clone()));
    let Some((_, first, _)) = link.ports.first() else { return };
    out.push((format!("{prefix}_SERVICE_PORT"), first.to_string()));
    for (name, port, _) in link.ports.iter().filter(|p| !p.0.is_empty()) {
        out.push((format!("{prefix}_SERVICE_PORT_{}", variable(name)), port.to_string()));
    }
    for (i, (_, port, protocol)) in link.ports.iter().enumerate() {
        let host = if link.ip.contains(':') { format!("[{}]", link.ip) } else { link.ip.clone() };
        let url = format!("{protocol}://{host}:{port}");
        if i == 0 {
            out.push((format!("{prefix}_PORT"), url.clone()));
        }
        let start = format!("{prefix}_PORT_{port}_{}", protocol.to_uppercase());
        out.push((start.clone(), url));
        out.push((format!("{start}_PROTO"), protocol.clone()));
        out.push((format!("{start}_PORT"), port.to_string()));
        out.push((format!("{start}_ADDR"), link.ip.clone()));
    }
}

/// The environment as it grows: in order, by name, and no larger than a program can have.
#[derive(Default)]
struct Variables {
    list: Vec<(String, Vec<u8>)>,
    place: HashMap<String, usize>,
    bytes: usize,
}

impl Variables {
    /// A later entry of the same name replaces an earlier one.
    fn put(&mut self, name: &str, value: Vec<u8>) -> Result<(), ConfigError> {
        if value.len() > STRING_MAX {
            return Err(too_long(name));
        }
        self.bytes += name.len() + value.len();
        if self.bytes > ENVIRONMENT_MAX {
            let text = format!("the environment is larger than {ENVIRONMENT_MAX} bytes");
            return Err(ConfigError(text));
        }
        match self.place.get(name) {
            Some(&at) => self.list[at].1 = value,
            None => {
                self.place.insert(name.to_owned(), self.list.len());
                self.list.push((name.to_owned(), value));
            }
        }
        Ok(())
    }

    fn get(&self, name: &str) -> Option<String> {
        let at = self.place.get(name)?;
        Some(String::from_utf8_lossy(&self.list[*at].1).into_owned())
    }
}

fn too_long(name: &str) -> ConfigError {
    ConfigError(format!("environment variable {name:.100} is longer than {STRING_MAX} bytes"))
}

/// The whole environment.
pub(crate) fn environment(inputs: &Inputs<'_>) -> Result<Vec<(String, Vec<u8>)>, ConfigError> {
    let mut linked = Vec::new();
    inputs.services.iter().for_each(|link| link_variables(link, &mut linked));
    let mut result = Variables::default();
    for (name, value) in env_from(inputs)? {
        result.put(&name, value)?;
    }
    let links: HashMap<&str, &str> = linked.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    for entry in inputs.container.env.iter().flatten() {
        let value = match &entry.value_from {
            Some(source) => match sourced(inputs, source)? {
                Some(value) => value,
                None => continue,
            },
            None => {
                let known =
                    |name: &str| result.get(name).or_else(|| links.get(name).map(|v| (*v).into()));
                let text = expand(entry.value.as_deref().unwrap_or(""), known);
                text.map_err(|_| too_long(&entry.name))?.into_bytes()
            }
        };
        result.put(&entry.name, value)?;
    }
    for (name, value) in linked {
        if !result.place.contains_key(&name) {
            result.put(&name, value.into_bytes())?;
        }
    }
    Ok(result.list)
}

fn env_from(inputs: &Inputs<'_>) -> Result<Vec<(String, Vec<u8>)>, ConfigError> {
    let mut out = Vec::new();
    for from in inputs.container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or("");
        let mut add = |key: &str, value: Vec<u8>| out.push((format!("{prefix}{key}"), value));
        if let Some(r) = &from.config_map_ref {
            match inputs.references.config_maps.get(&r.name).and_then(Option::as_ref) {
                Some(map) => {
                    map.data.iter().flatten().for_each(|(k, v)| add(k, v.clone().into_bytes()))
                }
                None if r.optional.unwrap_or(false) => {}
                None => return Err(not_found("configmap", &r.name)),
            }
        }
        if let Some(r) = &from.secret_ref {
            match inputs.references.secrets.get(&r.name).and_then(Option::as_ref) {
                Some(secret) => {
                    secret.data.iter().flatten().for_each(|(k, v)| add(k, v.0.clone()));
                }
                None if r.optional.unwrap_or(false) => {}
                None => return Err(not_found("secret", &r.name)),
            }
        }
    }
    Ok(out)
}

fn not_found(kind: &str, name: &str) -> ConfigError {
    ConfigError(format!("{kind} \"{name}\" not found"))
}

/// The value from one source; `None` when it is optional and missing.
fn sourced(inputs: &Inputs<'_>, source: &EnvVarSource) -> Result<Option<Vec<u8>>, ConfigError> {
    if let Some(f) = &source.field_ref {
        let value = downward::field(inputs.pod, &f.field_path, inputs.addresses)?;
        return Ok(Some(value.into_bytes()));
    }
    if let Some(r) = &source.resource_field_ref {
        let value = downward::resource(inputs.pod, inputs.container, r, inputs.node)?;
        return Ok(Some(value.into_bytes()));
    }
    if let Some(r) = &source.file_key_ref {
        return from_file(inputs, r);
    }
    let namespace = namespace_of(inputs.pod);
    let (kind, lower, name, key, optional, found) = if let Some(r) = &source.config_map_key_ref {
        let map = inputs.references.config_maps.get(&r.name).and_then(Option::as_ref);
        let value = map
            .map(|m| m.data.as_ref().and_then(|d| d.get(&r.key)).map(|v| v.clone().into_bytes()));
        ("ConfigMap", "configmap", &r.name, &r.key, r.optional, value)
    } else if let Some(r) = &source.secret_key_ref {
        let secret = inputs.references.secrets.get(&r.name).and_then(Option::as_ref);
        let value =
            secret.map(|s| s.data.as_ref().and_then(|d| d.get(&r.key)).map(|v| v.0.clone()));
        ("Secret", "secret", &r.name, &r.key, r.optional, value)
    } else {
        return Err(ConfigError("environment source is not supported".into()));
    };
    match found {
        Some(Some(value)) => Ok(Some(value)),
        _ if optional.unwrap_or(false) => Ok(None),
        Some(None) => {
            let m = format!("couldn't find key {key} in {kind} {namespace}/{name}");
            Err(ConfigError(m))
        }
        None => Err(not_found(lower, name)),
    }
}

fn from_file(inputs: &Inputs<'_>, r: &FileKeySelector) -> Result<Option<Vec<u8>>, ConfigError> {
    let place = (r.volume_name.clone(), r.path.clone());
    let file = inputs.references.files.get(&place).ok_or_else(|| {
        let name = &r.volume_name;
        ConfigError(format!("cannot find the volume {name:?} referenced by FileKeyRef"))
    })?;
    let content = file.content.clone()?;
    let value = env_file::value(&content, &r.key).map_err(|why| {
        tracing::debug!(why, file = file.shown, "environment file");
        ConfigError("couldn't parse env file".into())
    })?;
    match value {
        None if !r.optional.unwrap_or(false) => Err(ConfigError(format!(
            "environment variable key {:?} not found in file {:?}",
            r.key, file.shown
        ))),
        found => Ok(found),
    }
}
