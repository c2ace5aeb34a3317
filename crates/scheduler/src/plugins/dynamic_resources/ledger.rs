//! What the scheduler knows of claims and the informer does not tell yet: devices that are promised to a
//! pod on its way to a node, and claims as our own writes left them.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use devices::Allocated;
use k8s_openapi::api::resource::v1::{AllocationResult, ResourceClaim};
use tokio::time::Instant;

use super::claims::allocation;
use crate::store::Store;

/// By the claim's uid.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    entries: Mutex<HashMap<String, Entry>>,
}

#[derive(Debug)]
enum Entry {
    Promised(Arc<AllocationResult>),
    /// With the time of the write.
    Written(Arc<ResourceClaim>, Instant),
}

/// A claim that the informer does not show for so long after our write is gone (upstream's
/// `AssumeExtendedResourceTimeoutDefaultSeconds`).
const UNSEEN_MAX: Duration = Duration::from_secs(120);

/// Versions of one object grow; one that is no number is older than all.
fn version(claim: &ResourceClaim) -> u64 {
    claim.metadata.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0)
}

fn uid(claim: &ResourceClaim) -> &str {
    claim.metadata.uid.as_deref().unwrap_or("")
}

impl Ledger {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Promises devices to a claim; false when it has a promise already.
    pub(super) fn promise(&self, uid: &str, allocation: Arc<AllocationResult>) -> bool {
        let mut entries = self.lock();
        if matches!(entries.get(uid), Some(Entry::Promised(_))) {
            return false;
        }
        entries.insert(uid.to_owned(), Entry::Promised(allocation));
        true
    }

    pub(super) fn is_promised(&self, uid: &str) -> bool {
        matches!(self.lock().get(uid), Some(Entry::Promised(_)))
    }

    /// The promise is not kept.
    pub(super) fn take_back(&self, uid: &str) {
        let mut entries = self.lock();
        if matches!(entries.get(uid), Some(Entry::Promised(_))) {
            entries.remove(uid);
        }
    }

    /// The server has the claim so; that ends a promise.
    pub(super) fn written(&self, claim: Arc<ResourceClaim>) {
        self.lock().insert(uid(&claim).to_owned(), Entry::Written(claim, Instant::now()));
    }

    /// The claim as it was written last, if the informer does not tell that yet.
    pub(super) fn latest(&self, told: Arc<ResourceClaim>) -> Arc<ResourceClaim> {
        latest(&mut self.lock(), told)
    }

    /// What claims take, promises included.
    pub(super) fn allocated(&self, claims: &Store<ResourceClaim>) -> Allocated {
        let mut allocated = Allocated::default();
        let mut entries = self.lock();
        let told = claims.list();
        for claim in &told {
            let claim = latest(&mut entries, claim.clone());
            allocation(&claim).into_iter().for_each(|taken| allocated.add(taken));
        }
        let known: HashSet<&str> = told.iter().map(|claim| uid(claim)).collect();
        entries.retain(|own, entry| match entry {
            Entry::Promised(promised) => {
                allocated.add(promised);
                true
            }
            Entry::Written(..) if known.contains(own.as_str()) => true,
            // Just made, or gone.
            Entry::Written(claim, at) => {
                allocation(claim).into_iter().for_each(|taken| allocated.add(taken));
                at.elapsed() < UNSEEN_MAX
            }
        });
        allocated
    }
}

fn latest(entries: &mut HashMap<String, Entry>, told: Arc<ResourceClaim>) -> Arc<ResourceClaim> {
    match entries.get(uid(&told)) {
        Some(Entry::Written(written, _)) if version(written) > version(&told) => written.clone(),
        Some(Entry::Written(..)) => {
            entries.remove(uid(&told));
            told
        }
        _ => told,
    }
}
