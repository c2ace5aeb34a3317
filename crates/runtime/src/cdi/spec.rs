//! CDI files: what they say, and whether it may be said.

use serde::Deserialize;

use super::name;

/// Versions of the specification up to 1.1.0. What a version may not have yet is taken all the same.
const VERSIONS: [&str; 10] =
    ["0.1.0", "0.2.0", "0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0"];

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Spec {
    cdi_version: String,
    pub(super) kind: String,
    #[serde(default)]
    pub(super) devices: Vec<Device>,
    #[serde(default)]
    pub(super) container_edits: ContainerEdits,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Device {
    pub(super) name: String,
    #[serde(default)]
    pub(super) container_edits: ContainerEdits,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ContainerEdits {
    pub(super) env: Vec<String>,
    pub(super) device_nodes: Vec<DeviceNode>,
    pub(super) mounts: Vec<Mount>,
    pub(super) hooks: Vec<Hook>,
    pub(super) additional_gids: Vec<u32>,
    net_devices: Vec<serde_json::Value>,
    intel_rdt: Option<serde_json::Value>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct DeviceNode {
    pub(super) path: String,
    pub(super) host_path: String,
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) major: u32,
    pub(super) minor: u32,
    pub(super) file_mode: Option<u32>,
    pub(super) permissions: String,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Mount {
    pub(super) host_path: String,
    pub(super) container_path: String,
    pub(super) options: Vec<String>,
    #[serde(rename = "type")]
    pub(super) kind: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Hook {
    pub(super) hook_name: String,
    path: String,
}

impl ContainerEdits {
    fn is_empty(&self) -> bool {
        self.env.is_empty()
            && self.device_nodes.is_empty()
            && self.mounts.is_empty()
            && self.hooks.is_empty()
            && self.additional_gids.is_empty()
            && self.net_devices.is_empty()
            && self.intel_rdt.is_none()
    }

    fn check(&self) -> Result<(), String> {
        if let Some(bad) = self.env.iter().find(|e| e.find('=').is_none_or(|at| at == 0)) {
            return Err(format!("invalid container edits: invalid environment variable {bad:?}"));
        }
        for node in &self.device_nodes {
            node.check()?;
        }
        if let Some(hook) = self.hooks.iter().find(|hook| hook.path.is_empty()) {
            return Err(format!("invalid hook {:?} with empty path", hook.hook_name));
        }
        for mount in &self.mounts {
            if mount.host_path.is_empty() {
                return Err("invalid mount, empty host path".to_owned());
            }
            if mount.container_path.is_empty() {
                return Err("invalid mount, empty container path".to_owned());
            }
        }
        Ok(())
    }

    /// Unsupported edits, by name.
    pub(super) fn unsupported(&self) -> Option<String> {
        if let Some(hook) = self.hooks.first() {
            return Some(format!("CDI hooks ({})", hook.hook_name));
        }
        if !self.net_devices.is_empty() {
            return Some("CDI network devices".to_owned());
        }
        self.intel_rdt.is_some().then(|| "CDI edits of Intel RDT".to_owned())
    }
}

impl DeviceNode {
    fn check(&self) -> Result<(), String> {
        if self.path.is_empty() {
            return Err("invalid (empty) device path".to_owned());
        }
        if !["", "b", "c", "u", "p"].contains(&self.kind.as_str()) {
            return Err(format!("device {:?}: invalid type {:?}", self.path, self.kind));
        }
        let access = &self.permissions;
        if access != "none" && !access.trim_matches(['r', 'w', 'm']).is_empty() {
            return Err(format!("device {:?}: invalid permissions {access:?}", self.path));
        }
        Ok(())
    }
}

/// Reads a file's text; JSON is YAML, too.
pub(super) fn parse(text: &str) -> Result<Spec, String> {
    let spec: Spec =
        serde_yaml_ng::from_str(text).map_err(|e| format!("failed to unmarshal CDI Spec: {e}"))?;
    if !VERSIONS.contains(&spec.cdi_version.trim_start_matches('v')) {
        return Err(format!("invalid CDI Spec: invalid version {:?}", spec.cdi_version));
    }
    name::check_kind(&spec.kind)?;
    spec.container_edits.check()?;
    if spec.devices.is_empty() {
        return Err("invalid spec, no devices".to_owned());
    }
    for (index, device) in spec.devices.iter().enumerate() {
        let failed = |why: String| format!("failed add device {:?}: {why}", device.name);
        name::check_device(&device.name).map_err(failed)?;
        if device.container_edits.is_empty() {
            return Err(failed("invalid device, empty device edits".to_owned()));
        }
        device.container_edits.check().map_err(failed)?;
        if spec.devices[..index].iter().any(|other| other.name == device.name) {
            return Err(format!("invalid spec, multiple device {:?}", device.name));
        }
    }
    Ok(spec)
}
