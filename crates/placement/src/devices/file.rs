//! The state file (`kubelet_internal_checkpoint`), in upstream's form.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::given::{Allocation, DevicesPerNode, Given};
use super::{Asking, Names};
use crate::checkpoint::{CORRUPT, StateFile, checksum};

const FILE: &str = "kubelet_internal_checkpoint";

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct File {
    data: Data,
    checksum: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Data {
    /// Go writes a list that was never made as `null`, and sums it so.
    pod_device_entries: Option<Vec<Entry>>,
    registered_devices: BTreeMap<String, Vec<String>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    #[serde(rename = "PodUID")]
    pod_uid: String,
    #[serde(rename = "ContainerName")]
    container_name: String,
    #[serde(rename = "ResourceName")]
    resource_name: String,
    #[serde(rename = "DeviceIDs")]
    device_ids: DevicesPerNode,
    #[serde(rename = "AllocResp")]
    alloc_resp: String,
}

fn joined(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(" ")
}

fn dump_entry(entry: &Entry) -> Result<String, String> {
    let bytes = STANDARD.decode(&entry.alloc_resp).map_err(|e| e.to_string())?;
    let devices = entry.device_ids.iter().map(|(node, ids)| format!("{node}:[{}]", ids.join(" ")));
    Ok(format!(
        "{{PodUID:(string){} ContainerName:(string){} ResourceName:(string){} DeviceIDs:(checkpoint.DevicesPerNUMA)map[{}] AllocResp:([]uint8)[{}]}}",
        entry.pod_uid,
        entry.container_name,
        entry.resource_name,
        joined(devices),
        joined(bytes.iter().map(u8::to_string))
    ))
}

impl Data {
    fn sum(&self) -> Result<u64, String> {
        let entries = match &self.pod_device_entries {
            None => "<nil>".to_owned(),
            Some(list) => {
                let all = list.iter().map(dump_entry).collect::<Result<Vec<_>, _>>()?;
                format!("[{}]", all.join(" "))
            }
        };
        let registered = self.registered_devices.iter();
        let registered = registered.map(|(name, ids)| format!("{name}:[{}]", ids.join(" ")));
        let dump = format!(
            "(checkpoint.checkpointData){{PodDeviceEntries:([]checkpoint.PodDevicesEntry){entries} RegisteredDevices:(map[string][]string)map[{}]}}",
            joined(registered)
        );
        Ok(checksum(&dump).into())
    }
}

/// The containers' devices, and the resources that had plugins.
pub(super) fn parse(text: &str) -> Result<(Given, Names), String> {
    let file: File = serde_json::from_str(text).map_err(|e| e.to_string())?;
    if file.checksum != file.data.sum()? {
        return Err(CORRUPT.to_owned());
    }
    let mut given = Given::default();
    for entry in file.data.pod_device_entries.unwrap_or_default() {
        let answer = STANDARD.decode(&entry.alloc_resp).map_err(|e| e.to_string())?;
        let asking = Asking {
            uid: &entry.pod_uid,
            container: &entry.container_name,
            resource: &entry.resource_name,
            count: 0,
        };
        given.insert(asking, Allocation { devices: entry.device_ids.clone(), answer });
    }
    Ok((given, file.data.registered_devices.into_keys().collect()))
}

pub(super) fn text(given: &Given, registered: BTreeMap<String, Vec<String>>) -> String {
    let entries: Vec<Entry> = given
        .entries()
        .map(|(of, allocation)| Entry {
            pod_uid: of.uid.to_owned(),
            container_name: of.container.to_owned(),
            resource_name: of.resource.to_owned(),
            device_ids: allocation.devices.clone(),
            alloc_resp: STANDARD.encode(&allocation.answer),
        })
        .collect();
    let data = Data {
        pod_device_entries: Some(entries).filter(|list| !list.is_empty()),
        registered_devices: registered,
    };
    let checksum = data.sum().unwrap_or_default();
    serde_json::to_string(&File { data, checksum }).unwrap_or_default()
}

#[derive(Debug)]
pub(super) struct DevicesFile(StateFile);

impl DevicesFile {
    pub(super) fn new(dir: &Path) -> DevicesFile {
        DevicesFile(StateFile::new(dir, FILE, "device"))
    }

    pub(super) fn read(&self) -> Result<Option<(Given, Names)>, String> {
        let text = self.0.read().map_err(|e| e.to_string())?;
        text.map(|text| parse(&text)).transpose()
    }

    pub(super) fn write(&self, given: &Given, registered: BTreeMap<String, Vec<String>>) {
        self.0.write(&text(given, registered));
    }
}
