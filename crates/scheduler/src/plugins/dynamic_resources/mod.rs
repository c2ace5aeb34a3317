//! DynamicResources: gives the pod's ResourceClaims devices on the node that is chosen, or keeps the pod to
//! the nodes where its claims' devices are.
//!
//! Which devices, the crate `devices` decides; here is when: PreFilter collects claims and what is taken,
//! Filter allocates on each node, Reserve promises the devices to the pod, PreBind writes allocation and
//! reservation, and waits for devices that have to be made ready first.

mod bind;
mod claims;
mod conditions;
mod extended;
mod state;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use client::{Client, Tasks};
use devices::{Allocator, Environment, Fault, NodeView, Selectors};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::resource::v1::{AllocationResult, ResourceClaim};

use super::names;
use crate::event::{Action, ClusterEvent, Interest, Object, Resource};
use crate::framework::{
    BoxFuture, Code, Cycle, CycleState, Filters, Gap, NodeStatuses, Plugin, Points, PostFilter,
    PreFilter, Preparing, Status, Verdict, normalize_by_greatest, reject,
};
use crate::labels::selector_matches;
use crate::ledger::allocation;
use crate::node::NodeInfo;
use crate::pod::PodInfo;
use crate::store::Listers;

use extended::{NodeClaim, Promise};
use state::{NodeResult, Reached, Search, State};

#[derive(Debug)]
pub(crate) struct DynamicResources {
    pub(crate) listers: Arc<Listers>,
    pub(crate) client: Option<Client>,
    /// Run writes that nobody waits for.
    pub(crate) tasks: Option<Tasks>,
    pub(crate) selectors: Selectors,
    /// Longest that devices are searched for on one node; zero for as long as it takes.
    pub(crate) filter_timeout: Duration,
    /// Longest that devices may take to become ready.
    pub(crate) binding_timeout: Duration,
}

const NOT_AVAILABLE: &str = "resourceclaim not available on the node";
const NOT_ALLOCATED: &str = "cannot allocate all claims";

impl DynamicResources {
    fn refused(&self, why: String) -> Arc<Status> {
        reject(Code::Unresolvable, names::DYNAMIC_RESOURCES, why)
    }

    fn failed(&self, why: String) -> Arc<Status> {
        reject(Code::Error, names::DYNAMIC_RESOURCES, why)
    }

    /// The cycle's state; none for a pod without claims.
    fn state(&self, cycle: &mut Preparing<'_>) -> Result<Option<State>, Arc<Status>> {
        let claims = self.claims(&cycle.pod.pod).map_err(|why| self.refused(why))?;
        let extended = extended::of(cycle.pod, &self.listers);
        if claims.is_empty() && extended.is_none() {
            return Ok(None);
        }
        let mut to_allocate = Vec::new();
        for (at, claim) in claims.iter().enumerate() {
            if allocation(claim).is_some() {
                continue;
            }
            let uid = claim.metadata.uid.as_deref().unwrap_or("");
            if self.listers.ledger.is_promised(uid) {
                let claim = claims::key(claim);
                let why = format!("resource claim {claim} is in the process of being allocated");
                return Err(self.refused(why));
            }
            self.check_classes(claim).map_err(|why| self.refused(why))?;
            to_allocate.push(at);
        }
        let search = match to_allocate.is_empty() && extended.is_none() {
            true => None,
            false => Some(Search {
                allocated: self.listers.ledger.allocated(),
                slices: self.listers.slices.all().map_err(|why| self.failed(why))?,
            }),
        };
        Ok(Some(State::new(claims, to_allocate, extended, search)))
    }

    /// Places of claims that have devices and cannot be used on the node.
    fn unavailable(&self, state: &State, node: &Node) -> Vec<usize> {
        let is_usable = |claim: &ResourceClaim| {
            let Some(allocation) = allocation(claim) else { return true };
            let here = allocation.node_selector.as_ref();
            here.is_none_or(|selector| selector_matches(selector, node))
                && !conditions::is_lost(claim, self.binding_timeout, jiff::Timestamp::now())
        };
        let all = state.claims.iter().enumerate();
        all.filter(|(_, claim)| !is_usable(claim)).map(|(at, _)| at).collect()
    }

    fn allocate(
        &self,
        state: &State,
        search: &Search,
        node: &Node,
        extended: Option<&NodeClaim>,
    ) -> Result<Vec<AllocationResult>, Arc<Status>> {
        let own = state.to_allocate.iter().map(|at| state.claims[*at].clone());
        let claims: Vec<Arc<ResourceClaim>> =
            own.chain(extended.map(|node_claim| node_claim.claim.clone())).collect();
        let begun = Instant::now();
        let limit = self.filter_timeout;
        let allocator = Allocator {
            slices: &search.slices,
            allocated: &search.allocated,
            selectors: &self.selectors,
            environment: Environment {
                class: &|name| self.listers.device_classes.get("", name),
                share_id: &|| uuid::Uuid::new_v4().to_string(),
                is_late: &|| !limit.is_zero() && begun.elapsed() > limit,
            },
        };
        let name = node.metadata.name.as_deref().unwrap_or("");
        let matches = |selector: &_| selector_matches(selector, node);
        match allocator.allocate(&NodeView { name, matches: &matches }, &claims) {
            Ok(Some(results)) => Ok(results),
            Ok(None) => Err(self.refused(NOT_ALLOCATED.into())),
            Err(Fault::Node(why)) => Err(self.refused(why)),
            Err(Fault::Claim(why)) => Err(self.failed(why)),
            Err(Fault::Late) => {
                Err(self.failed(format!("node {name}: timed out trying to allocate devices")))
            }
        }
    }

    /// What the pod would get on the node.
    fn result(
        &self,
        state: &State,
        search: &Search,
        pod: &PodInfo,
        info: &NodeInfo,
        node: &Node,
    ) -> Result<NodeResult, Arc<Status>> {
        let extended = state.extended.as_ref();
        let extended = extended.map(|e| e.on_node(&pod.pod, info, &self.listers)).transpose();
        let extended = extended.map_err(|why| self.refused(why.into()))?.flatten();
        if state.to_allocate.is_empty() && extended.is_none() {
            return Ok(NodeResult::default());
        }
        let mut allocations = self.allocate(state, search, node, extended.as_ref())?;
        let extended = extended.and_then(|node_claim| Some((node_claim, allocations.pop()?)));
        Ok(NodeResult { allocations, extended })
    }

    fn delete_extended(&self, claim: Arc<ResourceClaim>) {
        if let Some(client) = self.client.clone() {
            self.spawn("delete claim", async move { bind::delete(&client, &claim).await });
        }
    }

    /// Writes that the planner does not wait for.
    fn spawn(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        if let Some(tasks) = &self.tasks {
            tasks.spawn(name, work);
        }
    }
}

impl Plugin for DynamicResources {
    fn name(&self) -> &'static str {
        names::DYNAMIC_RESOURCES
    }

    fn points(&self) -> Points {
        let filter = Points::PRE_ENQUEUE.and(Points::PRE_FILTER).and(Points::FILTER);
        let score = Points::POST_FILTER.and(Points::PRE_SCORE).and(Points::SCORE);
        filter.and(score).and(Points::RESERVE).and(Points::PRE_BIND)
    }

    fn events(&self) -> &'static [Interest] {
        &[
            (Resource::Node, Action::ADD),
            (Resource::Node, Action::NODE_LABEL),
            (Resource::Node, Action::ALLOCATABLE),
            (Resource::DeviceClaim, Action::ADD),
            (Resource::DeviceClaim, Action::UPDATE),
            (Resource::Pod, Action::POD_CLAIM),
            (Resource::DeviceClass, Action::ADD),
            (Resource::DeviceClass, Action::UPDATE),
            (Resource::DeviceSlice, Action::ADD),
            (Resource::DeviceSlice, Action::UPDATE),
        ]
    }

    fn queueing_hint(&self, pod: &PodInfo, event: &ClusterEvent) -> bool {
        match &event.object {
            Object::ResourceClaim((old, Some(new))) => self.helps(&pod.pod, old.as_deref(), new),
            Object::Pod((_, Some(new))) => {
                new.metadata.uid == pod.pod.metadata.uid && self.claims(new).is_ok()
            }
            _ => true,
        }
    }

    fn pre_enqueue(&self, pod: &PodInfo) -> Result<(), String> {
        self.claims(&pod.pod).map(drop)
    }

    fn pre_filter(&self, cycle: &mut Preparing<'_>) -> PreFilter {
        cycle.state.set(Reached);
        match self.state(cycle) {
            Err(status) => PreFilter::Reject(status),
            Ok(None) => PreFilter::Skip,
            Ok(Some(state)) => {
                cycle.state.set(state);
                PreFilter::Continue
            }
        }
    }

    fn filter(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> Verdict {
        let (Some(state), Some(object)) = (cycle.state.get::<State>(), &node.node) else {
            return Ok(());
        };
        let unavailable = self.unavailable(state, object);
        let results = state.search.as_ref();
        let results = results.map(|search| self.result(state, search, cycle.pod, node, object));
        let results = results.transpose()?;
        if !unavailable.is_empty() {
            state.unavailable.borrow_mut().extend(unavailable);
            return Err(self.refused(NOT_AVAILABLE.into()));
        }
        if let Some(results) = results {
            state.results.borrow_mut().insert(node.name.clone(), results);
        }
        Ok(())
    }

    fn post_filter(&self, cycle: &Cycle<'_>, _: &dyn Filters, _: &NodeStatuses) -> PostFilter {
        let unschedulable = |reason: &'static str| PostFilter::Unschedulable {
            reason: reason.into(),
            clear_nomination: false,
        };
        if cycle.state.get::<Reached>().is_none() {
            // Upstream looks for the state that its PreFilter leaves, and reports that it is missing.
            return PostFilter::Error("not found".into());
        }
        let Some(state) = cycle.state.get::<State>() else {
            return unschedulable("no new claims to deallocate");
        };
        let unavailable = state.unavailable.borrow();
        let mut claims = unavailable.iter().map(|at| &state.claims[*at]);
        if let Some(claim) = claims.find(|c| claims::can_be_deallocated(c, cycle.pod.uid())) {
            if let Some(client) = self.client.clone() {
                let claim = claim.clone();
                self.spawn("deallocate claim", async move {
                    bind::deallocate(&client, &claim).await;
                });
            }
            return unschedulable("deallocation of ResourceClaim completed");
        }
        if let Some(stale) = state.extended.as_ref().and_then(|e| e.stale.clone()) {
            self.delete_extended(stale);
            return unschedulable("deletion of ResourceClaim completed");
        }
        unschedulable("still not schedulable")
    }

    fn pre_score(&self, cycle: &mut Preparing<'_>, _: &[u32]) -> bool {
        let state = cycle.state.get::<State>();
        state.is_some_and(|state| state.claims.iter().any(|claim| claims::has_alternatives(claim)))
    }

    fn score(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> i64 {
        cycle.state.get::<State>().map_or(0, |state| state.score(&node.name))
    }

    fn normalizes(&self) -> bool {
        true
    }

    fn normalize(&self, _: &Cycle<'_>, _: &[u32], scores: &mut [i64]) {
        normalize_by_greatest(scores, false);
    }

    fn reserve(&self, state: &mut CycleState, _: &PodInfo, node: &str) -> Verdict {
        let Some(state) = state.get_mut::<State>() else { return Ok(()) };
        if state.search.is_none() {
            return Ok(());
        }
        let Some(results) = state.results.borrow_mut().remove(node) else {
            return Err(self.failed("claim allocation not found for node".into()));
        };
        if let (Some(extended), Some((node_claim, allocation))) =
            (&state.extended, results.extended)
        {
            let allocation = Arc::new(allocation);
            self.listers.ledger.promise(&extended.uid, allocation.clone());
            state.promise = Some(Promise { node_claim, allocation });
        }
        for (at, result) in state.to_allocate.iter().zip(results.allocations) {
            let (uid, result) = (state.uid(*at).to_owned(), Arc::new(result));
            if !self.listers.ledger.promise(&uid, result.clone()) {
                let claim = state.claims[*at].metadata.name.as_deref().unwrap_or("");
                return Err(self.failed(format!(
                    "internal error, couldn't signal allocation for claim {claim}"
                )));
            }
            state.promised.insert(*at, result);
        }
        Ok(())
    }

    fn unreserve(&self, state: &mut CycleState, pod: &PodInfo, _: &str) {
        let Some(state) = state.get_mut::<State>() else { return };
        for at in std::mem::take(&mut state.promised).into_keys() {
            self.listers.ledger.take_back(state.uid(at));
        }
        if let Some(extended) = &state.extended {
            self.listers.ledger.take_back(&extended.uid);
        }
        state.promise = None;
        if let Some(made) = state.made.take() {
            self.delete_extended(made);
        }
        for claim in state.claims.iter().filter(|c| devices::is_reserved_for(c, pod.uid())) {
            let Some(client) = self.client.clone() else { continue };
            let (claim, uid) = (claim.clone(), pod.uid().to_owned());
            self.spawn("unreserve claim", async move {
                bind::unreserve(&client, &claim, &uid).await;
            });
        }
    }

    fn pre_bind<'a>(
        &'a self,
        state: &'a mut CycleState,
        pod: &'a PodInfo,
        node: &'a str,
    ) -> BoxFuture<'a, Result<(), String>> {
        // The state is not shared between threads: what is written is collected and put back.
        let jobs = state.get::<State>().map(State::jobs);
        Box::pin(async move {
            let (Some(jobs), Some(client)) = (jobs, &self.client) else { return Ok(()) };
            for job in jobs {
                let (at, outcome) = (job.at, bind::bind(client, &self.listers, job, pod).await);
                let Some(state) = state.get_mut::<State>() else { return Ok(()) };
                state.promised.remove(&at);
                state.claims[at] = outcome?;
            }
            let promise = state.get::<State>().and_then(State::extended_job);
            if let Some((uid, promise)) = promise {
                let made = bind::create(client, &promise, pod).await?;
                let Some(state) = state.get_mut::<State>() else { return Ok(()) };
                state.made = Some(made.clone());
                let written = bind::fill(client, &self.listers, &made, &promise, pod).await;
                self.listers.ledger.take_back(&uid);
                written?;
            }
            let claims = state.get::<State>().map(|s| s.claims.clone()).unwrap_or_default();
            conditions::wait(&self.listers, &claims, self.binding_timeout).await.map_err(|why| {
                tracing::debug!(pod = pod.name(), node, why, "devices are not ready");
                why
            })
        })
    }

    fn gap(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> Option<Gap> {
        let (state, object) = (cycle.state.get::<State>()?, node.node.as_ref()?);
        let remedy = match self.unavailable(state, object).is_empty() {
            false => "have its claims' devices there",
            true => "have free devices there that its claims ask for",
        };
        Some(Gap { distance: 2.0, remedy: remedy.into() })
    }
}
