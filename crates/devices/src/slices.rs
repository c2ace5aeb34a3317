//! All slices of a cluster, found by node and by pool: what one node costs does not grow with the others.

use std::collections::HashMap;
use std::sync::Arc;

use crate::slice::Slice;

/// Driver and pool.
type PoolId = (Arc<str>, Arc<str>);

/// Slices of one moment.
#[derive(Debug, Default)]
pub struct Slices {
    /// Slices of one node each.
    of_node: HashMap<String, Vec<Arc<Slice>>>,
    /// Slices that several nodes may use, and those with counters, which every user of their pool needs.
    common: Vec<Arc<Slice>>,
    of_pool: HashMap<PoolId, Vec<Arc<Slice>>>,
}

impl Slices {
    pub fn new(all: impl IntoIterator<Item = Arc<Slice>>) -> Slices {
        let mut slices = Slices::default();
        for slice in all {
            let pool = (slice.driver.clone(), slice.pool.clone());
            slices.of_pool.entry(pool).or_default().push(slice.clone());
            match slice.placement.node.clone().filter(|_| slice.counter_sets.is_empty()) {
                Some(node) => slices.of_node.entry(node).or_default().push(slice),
                None => slices.common.push(slice),
            }
        }
        slices
    }

    /// Slices that may have something for the node.
    pub(crate) fn for_node(&self, node: &str) -> impl Iterator<Item = &Slice> {
        let own = self.of_node.get(node).into_iter().flatten();
        own.chain(&self.common).map(|slice| &**slice)
    }

    pub(crate) fn of_pool(&self, slice: &Slice) -> impl Iterator<Item = &Slice> {
        let pool = self.of_pool.get(&(slice.driver.clone(), slice.pool.clone()));
        pool.into_iter().flatten().map(|slice| &**slice)
    }
}
