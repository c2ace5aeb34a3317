//! Which devices are taken: by claims as the informer tells of them and as our own writes left them, and by
//! promises to pods on their way to a node. The count follows every change; nothing is counted anew.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use devices::Allocated;
use k8s_openapi::api::resource::v1::{AllocationResult, ResourceClaim};
use tokio::time::Instant;

/// A claim that the informer does not show for so long after our write is gone (upstream's
/// `AssumeExtendedResourceTimeoutDefaultSeconds`).
const UNSEEN_MAX: Duration = Duration::from_secs(120);

#[derive(Debug, Default)]
pub(crate) struct Ledger {
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    /// By the claim's uid.
    entries: HashMap<String, Entry>,
    /// Uids of claims that we wrote and the informer has never shown.
    unseen: BTreeSet<String>,
    allocated: Arc<Allocated>,
}

#[derive(Debug, Clone, Default)]
struct Entry {
    told: Option<Arc<ResourceClaim>>,
    /// As our last write left it, until the informer tells of that or of something newer.
    written: Option<(Arc<ResourceClaim>, Instant)>,
    promised: Option<Arc<AllocationResult>>,
}

pub(crate) fn allocation(claim: &ResourceClaim) -> Option<&AllocationResult> {
    claim.status.as_ref()?.allocation.as_ref()
}

/// Versions of one object grow; one that is no number is older than all.
fn version(claim: &ResourceClaim) -> u64 {
    claim.metadata.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0)
}

fn uid(claim: &ResourceClaim) -> &str {
    claim.metadata.uid.as_deref().unwrap_or("")
}

impl Entry {
    fn latest(&self) -> Option<&Arc<ResourceClaim>> {
        self.written.as_ref().map(|(claim, _)| claim).or(self.told.as_ref())
    }

    fn is_empty(&self) -> bool {
        self.latest().is_none() && self.promised.is_none()
    }

    /// What counts as taken.
    fn taken(&self) -> impl Iterator<Item = &AllocationResult> {
        let held = self.latest().and_then(|claim| allocation(claim));
        held.into_iter().chain(self.promised.as_deref())
    }
}

impl Book {
    /// Changes an entry, and the count with it.
    fn change(&mut self, uid: &str, change: impl FnOnce(&mut Entry)) {
        let before = self.entries.get(uid).cloned().unwrap_or_default();
        let mut after = before.clone();
        change(&mut after);
        if !before.taken().eq(after.taken()) {
            let allocated = Arc::make_mut(&mut self.allocated);
            before.taken().for_each(|taken| allocated.remove(taken));
            after.taken().for_each(|taken| allocated.add(taken));
        }
        match after.is_empty() {
            true => self.entries.remove(uid),
            false => self.entries.insert(uid.to_owned(), after),
        };
    }
}

impl Ledger {
    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The informer has it so.
    pub(crate) fn told(&self, claim: &Arc<ResourceClaim>) {
        let mut book = self.lock();
        book.unseen.remove(uid(claim));
        book.change(uid(claim), |entry| {
            let is_newer = |written: &ResourceClaim| version(written) > version(claim);
            entry.written.take_if(|(written, _)| !is_newer(written));
            entry.told = Some(claim.clone());
        });
    }

    pub(crate) fn gone(&self, claim: &ResourceClaim) {
        self.lock().change(uid(claim), |entry| (entry.told, entry.written) = (None, None));
    }

    /// Promises devices to a claim; false when it has a promise already.
    pub(crate) fn promise(&self, uid: &str, allocation: Arc<AllocationResult>) -> bool {
        let mut book = self.lock();
        if book.entries.get(uid).is_some_and(|entry| entry.promised.is_some()) {
            return false;
        }
        book.change(uid, |entry| entry.promised = Some(allocation));
        true
    }

    pub(crate) fn is_promised(&self, uid: &str) -> bool {
        self.lock().entries.get(uid).is_some_and(|entry| entry.promised.is_some())
    }

    /// The promise is not kept.
    pub(crate) fn take_back(&self, uid: &str) {
        self.lock().change(uid, |entry| entry.promised = None);
    }

    /// The server has the claim so, by our write; that ends a promise.
    pub(crate) fn written(&self, claim: &Arc<ResourceClaim>) {
        let mut book = self.lock();
        let own = uid(claim);
        book.change(own, |entry| {
            entry.promised = None;
            let is_old = entry.told.as_ref().is_some_and(|told| version(told) >= version(claim));
            if !is_old {
                entry.written = Some((claim.clone(), Instant::now()));
            }
        });
        if book.entries.get(own).is_some_and(|entry| entry.told.is_none()) {
            book.unseen.insert(own.to_owned());
        }
    }

    /// The claim as it was written last, if the informer does not tell that yet.
    pub(crate) fn latest(&self, told: Arc<ResourceClaim>) -> Arc<ResourceClaim> {
        let book = self.lock();
        let written = book.entries.get(uid(&told)).and_then(|entry| entry.written.as_ref());
        match written {
            Some((written, _)) if version(written) > version(&told) => written.clone(),
            _ => told,
        }
    }

    /// What is taken now.
    pub(crate) fn allocated(&self) -> Arc<Allocated> {
        let mut book = self.lock();
        let is_over = |uid: &&String| {
            let written = book.entries.get(*uid).and_then(|entry| entry.written.as_ref());
            written.is_none_or(|(_, at)| at.elapsed() > UNSEEN_MAX)
        };
        let over: Vec<String> = book.unseen.iter().filter(is_over).cloned().collect();
        for uid in over {
            book.unseen.remove(&uid);
            book.change(&uid, |entry| entry.written = None);
        }
        book.allocated.clone()
    }
}
