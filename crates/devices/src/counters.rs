//! Counters of partitionable devices: what devices of a pool take from its counter sets.

use std::collections::HashMap;

use api::quantity::Quantity;

use crate::allocated::Allocated;
use crate::pool::Pool;
use crate::slice::Device;

/// What is left of one pool's counters, by set and name; below zero when devices that are allocated take
/// more than there is.
#[derive(Debug)]
pub(crate) struct Counters<'a> {
    left: HashMap<(&'a str, &'a str), Quantity>,
}

impl<'a> Counters<'a> {
    pub(crate) fn of(pool: &Pool<'a>, allocated: &Allocated) -> Counters<'a> {
        let mut counters = Counters { left: HashMap::new() };
        for (set, amounts) in &pool.counter_sets {
            for (name, amount) in *amounts {
                counters.left.insert((set, name), *amount);
            }
        }
        for device in pool.devices().filter(|device| allocated.has(&device.id)) {
            counters.change(device, |left, amount| left - amount);
        }
        counters
    }

    fn change(&mut self, device: &'a Device, by: impl Fn(Quantity, Quantity) -> Quantity) {
        for (set, amounts) in &device.consumes {
            for (name, amount) in amounts {
                if let Some(left) = self.left.get_mut(&(set.as_str(), name.as_str())) {
                    *left = by(*left, *amount);
                }
            }
        }
    }

    /// Takes what the device consumes, if no counter of the pool is overdrawn then.
    pub(crate) fn take(&mut self, device: &'a Device) -> bool {
        self.change(device, |left, amount| left - amount);
        let enough = !self.left.values().any(Quantity::is_negative);
        if !enough {
            self.give_back(device);
        }
        enough
    }

    pub(crate) fn give_back(&mut self, device: &'a Device) {
        self.change(device, |left, amount| left + amount);
    }
}
