//! What claims and volumes say of sizes, modes and places.

use std::collections::BTreeMap;

use api::quantity::Quantity;
use csi::v1::*;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Amount;

const STORAGE: &str = "storage";

pub(crate) type Amounts = BTreeMap<String, Amount>;

/// Bytes of storage in a list of amounts; 0 without.
pub(crate) fn storage(of: Option<&Amounts>) -> i64 {
    let amount = of.and_then(|of| of.get(STORAGE));
    amount.and_then(|a| Quantity::parse(&a.0).ok()).map_or(0, |q| q.value())
}

/// Bytes as upstream writes them.
pub(crate) fn amount(bytes: i64) -> String {
    Quantity::from_bytes(bytes).to_string()
}

pub(crate) fn requested(claim: &PersistentVolumeClaim) -> i64 {
    let resources = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    storage(resources.and_then(|resources| resources.requests.as_ref()))
}

pub(crate) fn capacity_range(claim: &PersistentVolumeClaim) -> CapacityRange {
    let resources = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    let limit_bytes = storage(resources.and_then(|resources| resources.limits.as_ref()));
    CapacityRange { required_bytes: requested(claim), limit_bytes }
}

/// The capabilities that access modes mean to a driver.
pub(crate) fn capabilities(
    modes: &[String],
    access_type: &AccessType,
    single_node_multi_writer: bool,
) -> Result<Vec<VolumeCapability>, String> {
    let of = |mode: &String| {
        let mode = match mode.as_str() {
            "ReadWriteOnce" if single_node_multi_writer => Mode::SingleNodeMultiWriter,
            "ReadWriteOnce" => Mode::SingleNodeWriter,
            "ReadWriteOncePod" if single_node_multi_writer => Mode::SingleNodeSingleWriter,
            "ReadWriteOncePod" => Mode::SingleNodeWriter,
            "ReadOnlyMany" => Mode::MultiNodeReaderOnly,
            "ReadWriteMany" => Mode::MultiNodeMultiWriter,
            other => return Err(format!("unsupported AccessMode: {other}")),
        };
        let access_mode = Some(AccessMode { mode: mode as i32 });
        Ok(VolumeCapability { access_type: Some(access_type.clone()), access_mode })
    };
    modes.iter().map(of).collect()
}

pub(crate) fn access_type(mode: Option<&str>, fs_type: &str, flags: &[String]) -> AccessType {
    match mode {
        Some("Block") => AccessType::Block(BlockVolume {}),
        _ => AccessType::Mount(MountVolume {
            fs_type: fs_type.to_owned(),
            mount_flags: flags.to_vec(),
            volume_mount_group: String::new(),
        }),
    }
}

/// A volume's handle, when it is this driver's.
pub(crate) fn handle<'a>(volume: &'a PersistentVolume, driver: &str) -> Option<&'a str> {
    let csi = volume.spec.as_ref()?.csi.as_ref()?;
    (csi.driver == driver).then_some(csi.volume_handle.as_str())
}

/// Whether a volume's node affinity asks for this place.
pub(crate) fn is_at(volume: &PersistentVolume, topology: &Topology) -> bool {
    let affinity = volume.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref());
    let terms = affinity.and_then(|affinity| affinity.required.as_ref());
    let terms = terms.map_or(&[][..], |required| &required.node_selector_terms);
    terms.iter().any(|term| {
        let asked = term.match_expressions.iter().flatten();
        let mut asked = asked.filter(|e| topology.segments.contains_key(&e.key)).peekable();
        let is_met = |e: &k8s_openapi::api::core::v1::NodeSelectorRequirement| {
            let values = e.values.as_deref().unwrap_or_default();
            e.operator == "In" && values.contains(&topology.segments[&e.key])
        };
        asked.peek().is_some() && asked.all(is_met)
    })
}
