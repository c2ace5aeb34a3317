//! ResourceSlices, read once: quantities parsed, devices with the value that selectors look at.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use cel::Value;
use k8s_openapi::api::core::v1::NodeSelector;
use k8s_openapi::api::resource::v1::{self as resource, DeviceAttribute, DeviceTaint};

use crate::capacity::{Amounts, Capacity, quantity};

/// A device's name in the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceId {
    pub driver: Arc<str>,
    pub pool: Arc<str>,
    pub device: Arc<str>,
}

impl DeviceId {
    pub fn new(driver: &str, pool: &str, device: &str) -> DeviceId {
        DeviceId { driver: driver.into(), pool: pool.into(), device: device.into() }
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.driver, self.pool, self.device)
    }
}

/// Where devices of a slice, or one device, can be used.
#[derive(Debug, Clone, Default)]
pub(crate) struct Placement {
    pub(crate) node: Option<String>,
    pub(crate) all_nodes: bool,
    pub(crate) selector: Option<NodeSelector>,
}

/// A ResourceSlice.
#[derive(Debug)]
pub struct Slice {
    pub(crate) name: String,
    pub(crate) driver: Arc<str>,
    pub(crate) pool: Arc<str>,
    pub(crate) generation: i64,
    /// How many slices the pool has in this generation.
    pub(crate) slices_in_pool: i64,
    pub(crate) placement: Placement,
    pub(crate) per_device: bool,
    pub(crate) devices: Vec<Device>,
    /// Counter sets by name, in the slice's order.
    pub(crate) counter_sets: Vec<(String, Amounts)>,
}

#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) id: DeviceId,
    pub(crate) placement: Placement,
    pub(crate) binds_to_node: bool,
    pub(crate) binding_conditions: Option<Vec<String>>,
    pub(crate) binding_failure_conditions: Option<Vec<String>>,
    pub(crate) taints: Vec<DeviceTaint>,
    /// Several claims may have a share of it.
    pub(crate) is_shared: bool,
    /// What it takes from counter sets.
    pub(crate) consumes: Vec<(String, Amounts)>,
    pub(crate) attributes: BTreeMap<String, DeviceAttribute>,
    pub(crate) capacity: BTreeMap<String, Capacity>,
    /// The variable `device` of selectors, or why there is none.
    pub(crate) value: Result<Value<'static>, String>,
}

impl Slice {
    /// Fails for a quantity that is none.
    pub fn new(slice: &resource::ResourceSlice) -> Result<Slice, String> {
        let spec = &slice.spec;
        let (driver, pool): (Arc<str>, Arc<str>) =
            (spec.driver.as_str().into(), spec.pool.name.as_str().into());
        let name = slice.metadata.name.clone().unwrap_or_default();
        let read = |device: &resource::Device| {
            let id = DeviceId {
                driver: driver.clone(),
                pool: pool.clone(),
                device: device.name.as_str().into(),
            };
            Device::new(id, device).map_err(|why| format!("slice {name}: {why}"))
        };
        let devices =
            spec.devices.iter().flatten().map(read).collect::<Result<Vec<Device>, String>>()?;
        let mut counter_sets = Vec::new();
        for set in spec.shared_counters.iter().flatten() {
            counter_sets.push((set.name.clone(), counters(&set.counters)?));
        }
        Ok(Slice {
            driver: driver.clone(),
            pool: pool.clone(),
            generation: spec.pool.generation,
            slices_in_pool: spec.pool.resource_slice_count,
            placement: Placement {
                node: spec.node_name.clone().filter(|name| !name.is_empty()),
                all_nodes: spec.all_nodes == Some(true),
                selector: spec.node_selector.clone(),
            },
            per_device: spec.per_device_node_selection == Some(true),
            devices,
            counter_sets,
            name,
        })
    }

    /// The taints of a device, as the driver has set them.
    pub fn taints(&self, device: &str) -> Option<&[DeviceTaint]> {
        let found = self.devices.iter().find(|d| &*d.id.device == device);
        found.map(|d| d.taints.as_slice())
    }
}

impl Device {
    fn new(id: DeviceId, device: &resource::Device) -> Result<Device, String> {
        let mut capacity = BTreeMap::new();
        for (name, of) in device.capacity.iter().flatten() {
            capacity.insert(name.clone(), Capacity::new(of)?);
        }
        let mut consumes = Vec::new();
        for from in device.consumes_counters.iter().flatten() {
            consumes.push((from.counter_set.clone(), counters(&from.counters)?));
        }
        let attributes = device.attributes.clone().unwrap_or_default();
        let is_shared = device.allow_multiple_allocations == Some(true);
        let value = value(&id, is_shared, &attributes, &capacity);
        Ok(Device {
            placement: Placement {
                node: device.node_name.clone().filter(|name| !name.is_empty()),
                all_nodes: device.all_nodes == Some(true),
                selector: device.node_selector.clone(),
            },
            binds_to_node: device.binds_to_node == Some(true),
            binding_conditions: device.binding_conditions.clone(),
            binding_failure_conditions: device.binding_failure_conditions.clone(),
            taints: device.taints.clone().unwrap_or_default(),
            is_shared,
            consumes,
            attributes,
            capacity,
            value,
            id,
        })
    }

    /// The attribute of a fully qualified name; the driver's own need no domain.
    pub(crate) fn attribute(&self, name: &str) -> Option<&DeviceAttribute> {
        if let Some(found) = self.attributes.get(name) {
            return Some(found);
        }
        let (domain, own) = name.split_once('/')?;
        (domain == &*self.id.driver).then(|| self.attributes.get(own)).flatten()
    }
}

fn counters(of: &BTreeMap<String, resource::Counter>) -> Result<Amounts, String> {
    of.iter().map(|(name, counter)| Ok((name.clone(), quantity(&counter.value)?))).collect()
}

/// What selectors see of a device. Attributes and capacity are maps by domain, then by name.
fn value(
    id: &DeviceId,
    is_shared: bool,
    attributes: &BTreeMap<String, DeviceAttribute>,
    capacity: &BTreeMap<String, Capacity>,
) -> Result<Value<'static>, String> {
    let mut values = Vec::new();
    for (name, attribute) in attributes {
        let value = attribute_value(attribute).map_err(|why| format!("attribute {name}: {why}"))?;
        values.push((name.as_str(), value));
    }
    let amounts = capacity.iter().map(|(name, c)| (name.as_str(), Value::Quantity(c.value)));
    Ok(Value::map([
        ("driver".into(), Value::text(id.driver.clone())),
        ("allowMultipleAllocations".into(), Value::Bool(is_shared)),
        ("attributes".into(), by_domain(&id.driver, values)),
        ("capacity".into(), by_domain(&id.driver, amounts)),
    ]))
}

fn by_domain<'a>(
    driver: &Arc<str>,
    values: impl IntoIterator<Item = (&'a str, Value<'static>)>,
) -> Value<'static> {
    let mut domains: BTreeMap<Arc<str>, Vec<(Arc<str>, Value<'static>)>> = BTreeMap::new();
    for (name, value) in values {
        let (domain, own) = match name.split_once('/') {
            Some((domain, own)) => (domain.into(), own),
            None => (driver.clone(), name),
        };
        domains.entry(domain).or_default().push((own.into(), value));
    }
    Value::open_map(domains.into_iter().map(|(domain, values)| (domain, Value::map(values))))
}

fn attribute_value(attribute: &DeviceAttribute) -> Result<Value<'static>, String> {
    match attribute {
        DeviceAttribute { int: Some(number), .. } => Ok(Value::Int(*number)),
        DeviceAttribute { bool: Some(yes), .. } => Ok(Value::Bool(*yes)),
        DeviceAttribute { string: Some(text), .. } => Ok(Value::text(text.as_str())),
        DeviceAttribute { version: Some(version), .. } => {
            Value::semver(version).map_err(|why| format!("parse semantic version: {why}"))
        }
        // Lists are behind a gate that is off in v1.36.
        _ => Err("unsupported attribute value".into()),
    }
}
