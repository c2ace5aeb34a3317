//! Whether a workload is to be rolled out.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    ConfigMap, EnvFromSource, EnvVar, PodSpec, PodTemplateSpec, Secret, Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Asks for rollouts, with the value `true`.
const ASKED: &str = "rollout.trireme.io/on-config-change";
/// The configuration that the workload was last seen with.
pub(super) const OBSERVED: &str = "rollout.trireme.io/observed-config";
/// In the template: the configuration that pods were rolled out for.
pub(super) const HASH: &str = "rollout.trireme.io/config-hash";

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    ConfigMap,
    Secret,
}

impl Kind {
    pub(super) fn word(self) -> &'static str {
        match self {
            Kind::ConfigMap => "configmaps",
            Kind::Secret => "secrets",
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Nothing,
    /// Note the configuration; the pods that are there may well have it.
    Observe(String),
    RollOut(String),
}

pub(super) fn asks(meta: &ObjectMeta) -> bool {
    annotation(meta, ASKED) == Some("true")
}

fn annotation<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(key).map(String::as_str)
}

type Name = (Kind, String);

/// What the template refers to, and whether pods start without it.
pub(super) fn references(template: &PodTemplateSpec) -> BTreeMap<Name, bool> {
    let mut found = BTreeMap::new();
    let mut add = |kind: Kind, name: &str, optional: Option<bool>| {
        if !name.is_empty() {
            *found.entry((kind, name.to_owned())).or_insert(true) &= optional == Some(true);
        }
    };
    if let Some(spec) = &template.spec {
        of_containers(spec, &mut add);
        spec.volumes.iter().flatten().for_each(|volume| of_volume(volume, &mut add));
    }
    found
}

type Add<'a> = &'a mut dyn FnMut(Kind, &str, Option<bool>);

fn of_containers(spec: &PodSpec, add: Add<'_>) {
    for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
        container.env.iter().flatten().for_each(|variable| of_variable(variable, add));
        container.env_from.iter().flatten().for_each(|source| of_source(source, add));
    }
}

fn of_variable(variable: &EnvVar, add: Add<'_>) {
    let Some(from) = &variable.value_from else { return };
    if let Some(key) = &from.config_map_key_ref {
        add(Kind::ConfigMap, &key.name, key.optional);
    }
    if let Some(key) = &from.secret_key_ref {
        add(Kind::Secret, &key.name, key.optional);
    }
}

fn of_source(source: &EnvFromSource, add: Add<'_>) {
    if let Some(map) = &source.config_map_ref {
        add(Kind::ConfigMap, &map.name, map.optional);
    }
    if let Some(secret) = &source.secret_ref {
        add(Kind::Secret, &secret.name, secret.optional);
    }
}

fn of_volume(volume: &Volume, add: Add<'_>) {
    if let Some(map) = &volume.config_map {
        add(Kind::ConfigMap, &map.name, map.optional);
    }
    if let Some(secret) = &volume.secret {
        add(Kind::Secret, secret.secret_name.as_deref().unwrap_or(""), secret.optional);
    }
    let sources = volume.projected.iter().flat_map(|p| p.sources.iter().flatten());
    for source in sources {
        if let Some(map) = &source.config_map {
            add(Kind::ConfigMap, &map.name, map.optional);
        }
        if let Some(secret) = &source.secret {
            add(Kind::Secret, &secret.name, secret.optional);
        }
    }
}

/// Content by key.
pub(super) type Content = BTreeMap<String, Vec<u8>>;

pub(super) fn of_map(map: &ConfigMap) -> Content {
    let text =
        map.data.iter().flatten().map(|(key, text)| (key.clone(), text.clone().into_bytes()));
    let bytes = map.binary_data.iter().flatten();
    text.chain(bytes.map(|(key, bytes)| (key.clone(), bytes.0.clone()))).collect()
}

pub(super) fn of_secret(secret: &Secret) -> Content {
    let data = secret.data.iter().flatten();
    data.map(|(key, bytes)| (key.clone(), bytes.0.clone())).collect()
}

/// What to do for a workload that asks for it. While something that its pods need is missing, nothing: new
/// pods would not start.
pub(super) fn step(
    meta: &ObjectMeta,
    template: &PodTemplateSpec,
    content: impl Fn(Kind, &str) -> Option<Content>,
) -> Step {
    if !asks(meta) || meta.deletion_timestamp.is_some() {
        return Step::Nothing;
    }
    let Some(hash) = hash(&references(template), content) else { return Step::Nothing };
    match annotation(meta, OBSERVED) {
        None => Step::Observe(hash),
        Some(observed) if observed == hash => Step::Nothing,
        Some(observed) if names_of(observed) != names_of(&hash) => Step::Observe(hash),
        Some(_) => Step::RollOut(hash),
    }
}

/// Which configuration a hash is of: a template that refers to other configuration is another template, and
/// is rolled out for that.
fn names_of(hash: &str) -> &str {
    hash.split_once('.').map_or("", |(names, _)| names)
}

/// A digest of the names, and one of the content; none while something is missing.
fn hash(
    references: &BTreeMap<Name, bool>,
    content: impl Fn(Kind, &str) -> Option<Content>,
) -> Option<String> {
    let (mut names, mut all) = (Vec::new(), Vec::new());
    let put = |into: &mut Vec<u8>, part: &[u8]| {
        into.extend_from_slice(&(part.len() as u64).to_le_bytes());
        into.extend_from_slice(part);
    };
    for ((kind, name), optional) in references {
        put(&mut names, kind.word().as_bytes());
        put(&mut names, name.as_bytes());
        let found = content(*kind, name);
        if found.is_none() && !optional {
            return None;
        }
        put(&mut all, if found.is_some() { b"there" } else { b"absent" });
        for (key, value) in found.unwrap_or_default() {
            put(&mut all, key.as_bytes());
            put(&mut all, &value);
        }
        put(&mut all, b"");
    }
    let short = |bytes: &[u8]| {
        let digest = pki::sha256(bytes);
        digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    Some(format!("{}.{}", short(&names), short(&all)))
}
