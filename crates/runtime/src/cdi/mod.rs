//! Container Device Interface 1.1: devices by name (`vendor/class=name`), described by files of their vendors.
//!
//! A container that asks for devices gets the device nodes, mounts, variables and groups that the files say. Hooks
//! would be programs of the host that run for the container: they are refused, as is everything else that
//! cannot be given, so that no device is there by half.

mod edits;
mod name;
mod spec;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::cri::{ContainerConfig, KeyValue};
use crate::error::{Error, Result};
pub(crate) use edits::{CdiMount, Edits};
use spec::Spec;

/// Where files lie unless told otherwise; those of the later folder win.
pub const FOLDERS: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];
/// Longest file that is read, and most files of a folder.
const FILE_MAX: u64 = 1 << 20;
const FILES_MAX: usize = 1000;

/// A device of one file.
#[derive(Clone)]
struct Known {
    spec: Arc<Spec>,
    device: usize,
    folder: usize,
    path: PathBuf,
}

/// The files' devices by full name, and what is wrong with files.
#[derive(Default)]
struct Found {
    devices: BTreeMap<String, Known>,
    conflicts: BTreeSet<String>,
    faults: Vec<String>,
}

impl Found {
    fn fault(&mut self, path: &Path, why: &str) {
        self.faults.push(format!("failed to load CDI Spec {}: {why}", path.display()));
    }

    fn add(&mut self, path: &Path, folder: usize, spec: Spec) {
        let spec = Arc::new(spec);
        for (device, own) in spec.devices.iter().enumerate() {
            let name = format!("{}={}", spec.kind, own.name);
            let known = Known { spec: spec.clone(), device, folder, path: path.to_owned() };
            match self.devices.get(&name).filter(|other| other.folder == folder) {
                Some(other) => {
                    self.faults.push(format!(
                        "conflicting device {name:?} (specs {:?}, {:?})",
                        path.display().to_string(),
                        other.path.display().to_string()
                    ));
                    self.conflicts.insert(name);
                }
                None => {
                    self.conflicts.remove(&name);
                    self.devices.insert(name, known);
                }
            }
        }
    }
}

fn read(path: &Path) -> std::result::Result<Spec, String> {
    let mut text = String::new();
    let file = fs::File::open(path).map_err(|e| e.to_string())?;
    file.take(FILE_MAX).read_to_string(&mut text).map_err(|e| e.to_string())?;
    spec::parse(&text)
}

/// All files, in the order of their names.
fn scan(folders: &[PathBuf]) -> Found {
    let mut found = Found::default();
    for (index, folder) in folders.iter().enumerate() {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten().take(FILES_MAX);
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        paths.sort();
        let is_spec = |path: &&PathBuf| {
            matches!(path.extension().and_then(|e| e.to_str()), Some("json" | "yaml"))
        };
        for path in paths.iter().filter(is_spec) {
            match read(path) {
                Ok(spec) => found.add(path, index, spec),
                Err(why) => found.fault(path, &why),
            }
        }
    }
    let Found { devices, conflicts, .. } = &mut found;
    devices.retain(|name, _| !conflicts.contains(name));
    found
}

/// The edits of the container's CDI devices. Variables and groups are put into the configuration itself.
pub(crate) fn inject(config: &mut ContainerConfig, folders: &[PathBuf]) -> Result<Edits> {
    let mut edits = Edits::default();
    if config.cdi_devices.is_empty() {
        return Ok(edits);
    }
    let found = scan(folders);
    let mut seen: Vec<Arc<Spec>> = Vec::new();
    let mut missing = Vec::new();
    for device in &config.cdi_devices {
        let Some(known) = found.devices.get(&device.name) else {
            missing.push(device.name.as_str());
            continue;
        };
        if !seen.iter().any(|spec| Arc::ptr_eq(spec, &known.spec)) {
            edits.add(&known.spec.container_edits)?;
            seen.push(known.spec.clone());
        }
        edits.add(&known.spec.devices[known.device].container_edits)?;
    }
    if !missing.is_empty() {
        for fault in &found.faults {
            tracing::warn!(fault, "CDI");
        }
        let text =
            format!("CDI device injection failed: unresolvable CDI devices {}", missing.join(", "));
        return Err(Error::Invalid(text));
    }
    apply(config, &edits);
    Ok(edits)
}

fn apply(config: &mut ContainerConfig, edits: &Edits) {
    for (name, value) in &edits.env {
        config.envs.retain(|env| env.key != *name);
        config.envs.push(KeyValue { key: name.clone(), value: value.clone().into_bytes() });
    }
    config.mounts.retain(|m| !edits.mounts.iter().any(|other| other.target == m.container_path));
    config.devices.retain(|d| !edits.nodes.iter().any(|other| other.path == d.container_path));
    if !edits.groups.is_empty() {
        let linux = config.linux.get_or_insert_default();
        let context = linux.security_context.get_or_insert_default();
        context.supplemental_groups.extend(edits.groups.iter().map(|gid| i64::from(*gid)));
    }
}
