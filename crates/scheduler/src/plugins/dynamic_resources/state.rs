//! What one cycle of a pod with claims remembers.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use devices::{ALTERNATIVES_MAX, Allocated, Slices};
use k8s_openapi::api::resource::v1::{AllocationResult, ResourceClaim};

use super::bind::Job;
use super::extended::{Extended, NodeClaim, Promise};
use crate::ledger::allocation;

/// PreFilter was reached: an earlier plugin's rejection ends the cycle before it.
#[derive(Debug, Clone)]
pub(super) struct Reached;

/// What claims without devices are looked up in.
#[derive(Debug)]
pub(super) struct Search {
    pub(super) allocated: Arc<Allocated>,
    pub(super) slices: Arc<Slices>,
}

#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) claims: Vec<Arc<ResourceClaim>>,
    /// Places of claims without devices.
    pub(super) to_allocate: Vec<usize>,
    /// Absent if there are none.
    pub(super) search: Option<Arc<Search>>,
    /// Extended resources that device classes back.
    pub(super) extended: Option<Extended>,
    pub(super) results: RefCell<HashMap<Arc<str>, NodeResult>>,
    /// Places of claims that some node could not use.
    pub(super) unavailable: RefCell<BTreeSet<usize>>,
    /// By place, what Reserve promised.
    pub(super) promised: BTreeMap<usize, Arc<AllocationResult>>,
    /// What Reserve promised for extended resources.
    pub(super) promise: Option<Promise>,
    /// The claim for extended resources, once PreBind has made it.
    pub(super) made: Option<Arc<ResourceClaim>>,
}

/// What the pod would get on a node.
#[derive(Debug, Clone, Default)]
pub(super) struct NodeResult {
    /// One for each claim without devices.
    pub(super) allocations: Vec<AllocationResult>,
    pub(super) extended: Option<(NodeClaim, AllocationResult)>,
}

impl State {
    pub(super) fn new(
        claims: Vec<Arc<ResourceClaim>>,
        to_allocate: Vec<usize>,
        extended: Option<Extended>,
        search: Option<Search>,
    ) -> State {
        State {
            claims,
            to_allocate,
            extended,
            search: search.map(Arc::new),
            results: RefCell::default(),
            unavailable: RefCell::default(),
            promised: BTreeMap::new(),
            promise: None,
            made: None,
        }
    }

    pub(super) fn uid(&self, at: usize) -> &str {
        self.claims[at].metadata.uid.as_deref().unwrap_or("")
    }

    /// What PreBind has to write.
    pub(super) fn jobs(&self) -> Vec<Job> {
        let job = |(at, claim): (usize, &Arc<ResourceClaim>)| Job {
            at,
            claim: claim.clone(),
            allocation: self.promised.get(&at).cloned(),
        };
        self.claims.iter().enumerate().map(job).collect()
    }

    /// What PreBind has to write for extended resources, and what stands for it in the ledger.
    pub(super) fn extended_job(&self) -> Option<(String, Promise)> {
        Some((self.extended.as_ref()?.uid.clone(), self.promise.clone()?))
    }

    /// The earlier the alternatives that the claims got on the node, the better.
    pub(super) fn score(&self, node: &str) -> i64 {
        let results = self.results.borrow();
        let mut made = results.get(node).map_or(&[][..], |result| &result.allocations).iter();
        let mut score = 0;
        for claim in &self.claims {
            if let Some(allocation) = allocation(claim).or_else(|| made.next()) {
                score += rank(claim, allocation);
            }
        }
        score
    }
}

fn rank(claim: &ResourceClaim, allocation: &AllocationResult) -> i64 {
    let results = allocation.devices.iter().flat_map(|d| d.results.iter().flatten());
    let chosen: BTreeSet<&str> =
        results.map(|r| r.request.as_str()).filter(|request| request.contains('/')).collect();
    let requests = claim.spec.devices.iter().flat_map(|d| d.requests.iter().flatten());
    let mut score = 0;
    for request in requests {
        for (at, alternative) in request.first_available.iter().flatten().enumerate() {
            let reference = format!("{}/{}", request.name, alternative.name);
            if chosen.contains(reference.as_str()) {
                score += i64::try_from(ALTERNATIVES_MAX.saturating_sub(at)).unwrap_or(0);
            }
        }
    }
    score
}
