//! What allocations of claims already take.

use std::collections::{HashMap, HashSet};

use k8s_openapi::api::resource::v1::AllocationResult;

use crate::slice::{Amounts, DeviceId, quantity};

/// Devices that claims have.
#[derive(Debug, Clone, Default)]
pub struct Allocated {
    /// Devices that one claim has for itself.
    whole: HashSet<DeviceId>,
    /// Devices that claims have shares of, with the sum of the shares.
    shared: HashMap<DeviceId, Amounts>,
}

impl Allocated {
    /// Counts an allocation. Devices that are accessed as an administrator are not taken by that.
    pub fn add(&mut self, allocation: &AllocationResult) {
        let devices = allocation.devices.as_ref();
        for result in devices.into_iter().flat_map(|d| d.results.iter().flatten()) {
            if result.admin_access == Some(true) {
                continue;
            }
            let id = DeviceId::new(&result.driver, &result.pool, &result.device);
            if result.share_id.is_none() {
                self.whole.insert(id);
                continue;
            }
            let sum = self.shared.entry(id).or_default();
            for (name, text) in result.consumed_capacity.iter().flatten() {
                // The server has read it as a quantity before.
                let Ok(amount) = quantity(text) else { continue };
                let before = sum.entry(name.clone()).or_insert(api::quantity::Quantity::ZERO);
                *before = *before + amount;
            }
        }
    }

    pub(crate) fn is_whole(&self, id: &DeviceId) -> bool {
        self.whole.contains(id)
    }

    /// The sum of its shares; none when nobody has one.
    pub(crate) fn shares(&self, id: &DeviceId) -> Option<&Amounts> {
        self.shared.get(id)
    }

    pub(crate) fn has(&self, id: &DeviceId) -> bool {
        self.is_whole(id) || self.shared.contains_key(id)
    }
}
