//! What allocations of claims already take.

use std::collections::HashMap;

use api::quantity::Quantity;
use k8s_openapi::api::resource::v1::{AllocationResult, DeviceRequestAllocationResult};

use crate::capacity::{Amounts, quantity};
use crate::slice::DeviceId;

/// Devices that claims have.
#[derive(Debug, Clone, Default)]
pub struct Allocated {
    /// Devices that a claim has for itself, and how many say so.
    whole: HashMap<DeviceId, u32>,
    /// Devices that claims have shares of: how many shares, and their sum.
    shared: HashMap<DeviceId, (u32, Amounts)>,
}

/// The devices that an allocation takes. Those that are accessed as an administrator it does not.
fn taken(
    allocation: &AllocationResult,
) -> impl Iterator<Item = (DeviceId, &DeviceRequestAllocationResult)> {
    let results = allocation.devices.iter().flat_map(|d| d.results.iter().flatten());
    let counts = results.filter(|result| result.admin_access != Some(true));
    counts.map(|r| (DeviceId::new(&r.driver, &r.pool, &r.device), r))
}

/// What a share takes; the server has read the amounts as quantities before.
fn amounts(result: &DeviceRequestAllocationResult) -> impl Iterator<Item = (&String, Quantity)> {
    let amounts = result.consumed_capacity.iter().flatten();
    amounts.filter_map(|(name, text)| Some((name, quantity(text).ok()?)))
}

impl Allocated {
    /// Counts an allocation.
    pub fn add(&mut self, allocation: &AllocationResult) {
        for (id, result) in taken(allocation) {
            if result.share_id.is_none() {
                *self.whole.entry(id).or_default() += 1;
                continue;
            }
            let (count, sum) = self.shared.entry(id).or_default();
            *count += 1;
            for (name, amount) in amounts(result) {
                let before = sum.entry(name.clone()).or_insert(Quantity::ZERO);
                *before = *before + amount;
            }
        }
    }

    /// Takes back what [`Allocated::add`] counted.
    pub fn remove(&mut self, allocation: &AllocationResult) {
        for (id, result) in taken(allocation) {
            if result.share_id.is_none() {
                if let Some(count) = self.whole.get_mut(&id) {
                    *count -= 1;
                    if *count == 0 {
                        self.whole.remove(&id);
                    }
                }
                continue;
            }
            let Some((count, sum)) = self.shared.get_mut(&id) else { continue };
            *count -= 1;
            if *count == 0 {
                self.shared.remove(&id);
                continue;
            }
            for (name, amount) in amounts(result) {
                if let Some(before) = sum.get_mut(name) {
                    *before = *before - amount;
                }
            }
        }
    }

    pub(crate) fn is_whole(&self, id: &DeviceId) -> bool {
        self.whole.contains_key(id)
    }

    /// The sum of its shares; none when nobody has one.
    pub(crate) fn shares(&self, id: &DeviceId) -> Option<&Amounts> {
        self.shared.get(id).map(|(_, sum)| sum)
    }

    pub(crate) fn has(&self, id: &DeviceId) -> bool {
        self.is_whole(id) || self.shared.contains_key(id)
    }
}
