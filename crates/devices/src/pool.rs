//! The resource pools that have devices for a node (`pools_incubating.go`).

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use crate::capacity::Amounts;
use crate::environment::NodeView;
use crate::slice::{Device, Placement, Slice};
use crate::slices::Slices;

/// A pool as one node sees it.
#[derive(Debug)]
pub(crate) struct Pool<'a> {
    driver: &'a str,
    name: &'a str,
    pub(crate) state: State,
    /// Slices with devices for the node, by name.
    pub(crate) slices: Vec<&'a Slice>,
    /// The pool's other slices with devices: these may take from the counters, too.
    pub(crate) others: Vec<&'a Slice>,
    pub(crate) counter_sets: BTreeMap<&'a str, &'a Amounts>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Usable,
    /// The driver is publishing it: nothing is taken from it.
    Incomplete,
    /// Names in it are not unique, or counters are missing.
    Invalid,
}

impl fmt::Display for Pool<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.driver, self.name)
    }
}

impl Placement {
    /// Whether it says anything.
    fn is_given(&self) -> bool {
        self.node.is_some() || self.all_nodes || self.selector.is_some()
    }

    pub(crate) fn includes(&self, node: &NodeView<'_>) -> bool {
        match (&self.node, &self.selector) {
            (Some(name), _) => name == node.name,
            (None, _) if self.all_nodes => true,
            (None, Some(selector)) => (node.matches)(selector),
            (None, None) => false,
        }
    }
}

impl Slice {
    /// Counters are needed wherever their pool is used.
    fn is_relevant(&self, node: &NodeView<'_>) -> bool {
        if !self.counter_sets.is_empty() {
            return true;
        }
        match self.per_device && !self.placement.is_given() {
            true => self.devices.iter().any(|device| device.placement.includes(node)),
            false => self.placement.includes(node),
        }
    }
}

type Group<'a> = Vec<&'a Slice>;

/// The pools with devices for the node, in the order in which devices are tried: by driver and name, those
/// with binding conditions last. First fit lets drivers say by names what goes first.
pub(crate) fn gather<'a>(slices: &'a Slices, node: &NodeView<'_>) -> Vec<Pool<'a>> {
    let mut relevant: BTreeMap<(&str, &str), Group<'a>> = BTreeMap::new();
    for slice in slices.for_node(node.name).filter(|slice| slice.is_relevant(node)) {
        add(relevant.entry((&slice.driver, &slice.pool)).or_default(), slice);
    }
    let pools = relevant.into_iter().filter_map(|(id, own)| pool(id, own, slices));
    let (last, mut first): (Vec<_>, Vec<_>) = pools.partition(Pool::has_binding_conditions);
    first.extend(last);
    first
}

/// A newer generation replaces an older one.
fn add<'a>(group: &mut Group<'a>, slice: &'a Slice) {
    match group.first().map(|first| slice.generation.cmp(&first.generation)) {
        Some(std::cmp::Ordering::Less) => return,
        Some(std::cmp::Ordering::Greater) => group.clear(),
        _ => {}
    }
    group.push(slice);
}

/// None for a generation that is being replaced.
fn pool<'a>(
    (driver, name): (&'a str, &'a str),
    own: Group<'a>,
    all: &'a Slices,
) -> Option<Pool<'a>> {
    let (generation, wanted) = own.first().map(|s| (s.generation, s.slices_in_pool))?;
    let mut pool = Pool {
        driver,
        name,
        state: State::Incomplete,
        slices: Vec::new(),
        others: Vec::new(),
        counter_sets: BTreeMap::new(),
    };
    let count = |slices: &Group<'_>| i64::try_from(slices.len()).unwrap_or(i64::MAX);
    let mut rest = Vec::new();
    if count(&own) != wanted {
        let of_pool: Group<'a> = own.first().into_iter().flat_map(|s| all.of_pool(s)).collect();
        if of_pool.iter().any(|slice| slice.generation > generation) {
            return None;
        }
        let whole: Group<'a> =
            of_pool.into_iter().filter(|slice| slice.generation == generation).collect();
        if count(&whole) != wanted {
            return Some(pool);
        }
        let known: HashSet<&str> = own.iter().map(|slice| slice.name.as_str()).collect();
        rest = whole.into_iter().filter(|slice| !known.contains(slice.name.as_str())).collect();
    }
    pool.state = if pool.fill(own, rest) { State::Usable } else { State::Invalid };
    Some(pool)
}

impl<'a> Pool<'a> {
    /// Sorts the pool's slices; whether they go together.
    fn fill(&mut self, own: Group<'a>, rest: Group<'a>) -> bool {
        let (counters, mut slices): (Group<'a>, Group<'a>) =
            own.into_iter().partition(|slice| !slice.counter_sets.is_empty());
        slices.sort_by(|a, b| a.name.cmp(&b.name));
        let mut names = HashSet::new();
        let unique = slices.iter().flat_map(|s| &s.devices).all(|d| names.insert(&d.id.device));
        self.slices = slices;
        self.others = rest;
        for (name, amounts) in counters.iter().flat_map(|slice| &slice.counter_sets) {
            if self.counter_sets.insert(name, amounts).is_some() {
                return false;
            }
        }
        unique && self.devices().all(|device| self.has_counters_of(device))
    }

    /// All devices, whether they are for the node or not.
    pub(crate) fn devices(&self) -> impl Iterator<Item = &'a Device> + '_ {
        self.slices.iter().chain(&self.others).flat_map(|slice| &slice.devices)
    }

    fn has_counters_of(&self, device: &Device) -> bool {
        device.consumes.iter().all(|(set, amounts)| {
            let known = self.counter_sets.get(set.as_str());
            known.is_some_and(|known| amounts.keys().all(|name| known.contains_key(name)))
        })
    }

    fn has_binding_conditions(&self) -> bool {
        let mut devices = self.slices.iter().flat_map(|slice| &slice.devices);
        devices.any(|device| device.binding_conditions.is_some())
    }
}
