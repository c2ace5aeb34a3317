//! The search for devices: claim after claim, request after request, device after device, each candidate
//! tried until the rest can be allocated, too (`allocator_incubating.go`). The first solution is taken.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::resource::v1::{AllocationResult, ResourceClaim};

use crate::allocated::Allocated;
use crate::capacity::{self, Amounts};
use crate::constraint::Constraint;
use crate::counters::Counters;
use crate::environment::{Environment, Fault, NodeView, RESULTS_MAX};
use crate::pool::{Pool, State, gather};
use crate::request::{Amount, Entry, Location, Want, claim_key, entries};
use crate::results::{Picked, allocation};
use crate::selector::Selectors;
use crate::slice::{Device, DeviceId, Slice};
use crate::slices::Slices;
use crate::taint::keeps_away;

/// Finds devices.
#[derive(Debug)]
pub struct Allocator<'a> {
    pub slices: &'a Slices,
    pub allocated: &'a Allocated,
    pub selectors: &'a Selectors,
    pub environment: Environment<'a>,
}

impl Allocator<'_> {
    /// An allocation for each of the claims on the node; none when there are not enough devices.
    pub fn allocate(
        &self,
        node: &NodeView<'_>,
        claims: &[Arc<ResourceClaim>],
    ) -> Result<Option<Vec<AllocationResult>>, Fault> {
        let mut search = Search::new(self, node);
        for claim in claims {
            search.add(claim)?;
        }
        match search.next(Cursor::default(), false, Location::default())? {
            Step::Done => search.results().map(Some),
            _ if search.pools.iter().any(|pool| pool.state == State::Invalid) => {
                Err(Fault::Node("invalid resource pools were encountered".into()))
            }
            _ => Ok(None),
        }
    }
}

/// A claim, what it asks for, and what it has so far.
#[derive(Debug)]
struct Claim<'a> {
    claim: &'a ResourceClaim,
    entries: Vec<Entry<'a>>,
    constraints: Vec<Constraint<'a>>,
    picked: Vec<Picked<'a>>,
}

/// The device that is looked for next.
#[derive(Debug, Clone, Copy, Default)]
struct Cursor {
    claim: usize,
    request: usize,
    alternative: usize,
    /// How many devices the request has already.
    device: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Done,
    /// What was picked so far leads nowhere.
    Stuck,
    /// The claim would get more devices than its status can hold, whatever is picked.
    TooMany,
}

struct Search<'s> {
    allocator: &'s Allocator<'s>,
    node: &'s NodeView<'s>,
    pools: Vec<Pool<'s>>,
    claims: Vec<Claim<'s>>,
    /// Whether a device fits a request, by pool, slice, device, claim, request and alternative: that does
    /// not depend on what was picked.
    fits: HashMap<(usize, usize, usize, usize, usize, usize), bool>,
    /// Claims that a device is picked for as a whole.
    taken: HashMap<&'s DeviceId, HashSet<usize>>,
    /// What is picked of shared devices: how many shares, and their sum.
    shares: HashMap<&'s DeviceId, (usize, Amounts)>,
    /// By pool, made when a device first takes from them.
    counters: HashMap<usize, Counters<'s>>,
}

impl<'s> Search<'s> {
    fn new(allocator: &'s Allocator<'s>, node: &'s NodeView<'s>) -> Search<'s> {
        Search {
            allocator,
            node,
            pools: gather(allocator.slices, node),
            claims: Vec::new(),
            fits: HashMap::new(),
            taken: HashMap::new(),
            shares: HashMap::new(),
            counters: HashMap::new(),
        }
    }

    /// Reads a claim. One that needs more devices than its status can hold is refused.
    fn add(&mut self, claim: &'s ResourceClaim) -> Result<(), Fault> {
        let entries = entries(claim, &self.allocator.environment)?;
        let devices = claim.spec.devices.as_ref();
        let constraints = devices.into_iter().flat_map(|d| d.constraints.iter().flatten());
        let mut read = Vec::new();
        for (at, constraint) in constraints.enumerate() {
            read.push(Constraint::of(constraint).ok_or_else(|| {
                Fault::Claim(format!(
                    "claim {}, constraint #{at}: empty constraint (unsupported constraint type?)",
                    claim_key(claim)
                ))
            })?);
        }
        let own = self.claims.len();
        self.claims.push(Claim { claim, entries, constraints: read, picked: Vec::new() });
        self.find_all(own)?;
        let least = |entry: &Entry<'_>| entry.wants.iter().map(Want::count).min().unwrap_or(0);
        let least: usize =
            self.claims[own].entries.iter().map(least).fold(0, usize::saturating_add);
        if least > RESULTS_MAX {
            return Err(Fault::Claim(format!(
                "claim {}: number of requested devices {least} exceeds the claim limit of \
                 {RESULTS_MAX}",
                claim_key(claim)
            )));
        }
        Ok(())
    }

    /// The devices of requests for all that match. A pool that is incomplete could have more of them.
    fn find_all(&mut self, claim: usize) -> Result<(), Fault> {
        for request in 0..self.claims[claim].entries.len() {
            for alternative in 0..self.claims[claim].entries[request].wants.len() {
                let at = Cursor { claim, request, alternative, device: 0 };
                if matches!(self.want(at).amount, Amount::All(_)) {
                    let places = self.matching(at)?;
                    let entry = &mut self.claims[claim].entries[request];
                    entry.wants[alternative].amount = Amount::All(places);
                }
            }
        }
        Ok(())
    }

    fn matching(&mut self, at: Cursor) -> Result<Vec<Location>, Fault> {
        let mut places = Vec::new();
        for pool in 0..self.pools.len() {
            let why = match self.pools[pool].state {
                State::Usable => None,
                State::Incomplete => Some("being updated"),
                State::Invalid => Some("invalid"),
            };
            if let Some(why) = why {
                return Err(Fault::Claim(format!(
                    "claim {}, request {}: asks for all devices, but resource pool {} is currently \
                     {why}",
                    claim_key(self.claims[at.claim].claim),
                    self.want(at).name,
                    self.pools[pool],
                )));
            }
            for slice in 0..self.pools[pool].slices.len() {
                for device in 0..self.pools[pool].slices[slice].devices.len() {
                    let place = Location { pool, slice, device };
                    if self.fits(at, place)? && self.suffices(at, place) {
                        places.push(place);
                    }
                }
            }
        }
        Ok(places)
    }

    fn want(&self, at: Cursor) -> &Want<'s> {
        &self.claims[at.claim].entries[at.request].wants[at.alternative]
    }

    fn device(&self, place: Location) -> (&'s Slice, &'s Device) {
        let slice = self.pools[place.pool].slices[place.slice];
        (slice, &slice.devices[place.device])
    }

    /// Allocates the device at the cursor and all after it. Within a request, devices are tried from
    /// `start` on: their order does not matter, so that each combination is tried once. `settled` says that
    /// the alternative of the cursor is the one to try.
    fn next(&mut self, at: Cursor, settled: bool, start: Location) -> Result<Step, Fault> {
        if (self.allocator.environment.is_late)() {
            return Err(Fault::Late);
        }
        let Some(claim) = self.claims.get(at.claim) else { return Ok(Step::Done) };
        let Some(entry) = claim.entries.get(at.request) else {
            let following = Cursor { claim: at.claim + 1, ..Cursor::default() };
            // Other devices for this claim may leave an alternative with fewer devices to the next.
            return Ok(match self.next(following, false, Location::default())? {
                Step::TooMany => Step::Stuck,
                step => step,
            });
        };
        if !settled && entry.has_alternatives {
            return self.alternatives(at);
        }
        let want = &entry.wants[at.alternative];
        let all = match &want.amount {
            Amount::All(places) if places.is_empty() => return Ok(Step::Stuck),
            Amount::All(places) => Some(places.get(at.device).copied()),
            Amount::Exactly(_) => None,
        };
        let count = want.count();
        if at.device >= count {
            let following =
                Cursor { claim: at.claim, request: at.request + 1, ..Cursor::default() };
            return self.next(following, false, Location::default());
        }
        if claim.picked.len() + count - at.device > RESULTS_MAX {
            return Ok(Step::TooMany);
        }
        match all {
            Some(Some(place)) => Ok(self.try_place(at, place, true)?.unwrap_or(Step::Stuck)),
            Some(None) => Ok(Step::Stuck),
            None => self.try_places(at, start),
        }
    }

    /// The first alternative that leads to a solution.
    fn alternatives(&mut self, at: Cursor) -> Result<Step, Fault> {
        let mut outcome = Step::TooMany;
        for alternative in 0..self.claims[at.claim].entries[at.request].wants.len() {
            match self.next(Cursor { alternative, ..at }, true, Location::default())? {
                Step::Done => {
                    self.claims[at.claim].entries[at.request].chosen = alternative;
                    return Ok(Step::Done);
                }
                // A later alternative may need fewer devices.
                Step::TooMany => {}
                Step::Stuck => outcome = Step::Stuck,
            }
        }
        Ok(outcome)
    }

    fn try_places(&mut self, at: Cursor, start: Location) -> Result<Step, Fault> {
        for pool in start.pool..self.pools.len() {
            if self.pools[pool].state != State::Usable {
                continue;
            }
            let first = if pool == start.pool { start.slice } else { 0 };
            for slice in first..self.pools[pool].slices.len() {
                let here = (pool, slice) == (start.pool, start.slice);
                let first = if here { start.device } else { 0 };
                for device in first..self.pools[pool].slices[slice].devices.len() {
                    let place = Location { pool, slice, device };
                    match self.try_place(at, place, false)? {
                        None | Some(Step::Stuck) => {}
                        Some(step) => return Ok(step),
                    }
                }
            }
        }
        Ok(Step::Stuck)
    }

    /// Picks the device and goes on; none if it cannot be picked. What led nowhere is put back.
    fn try_place(
        &mut self,
        at: Cursor,
        place: Location,
        must: bool,
    ) -> Result<Option<Step>, Fault> {
        if self.is_in_use(at, place)
            || !self.fits(at, place)?
            || !self.suffices(at, place)
            || !self.pick(at, place, must)?
        {
            return Ok(None);
        }
        let following = Cursor { device: at.device + 1, ..at };
        let from = match must {
            true => Location::default(),
            false => Location { device: place.device + 1, ..place },
        };
        let step = self.next(following, true, from)?;
        if step != Step::Done {
            self.put_back(at, place);
        }
        Ok(Some(step))
    }

    /// Whether others have the device. Administrators share it with everybody but their own claim.
    fn is_in_use(&self, at: Cursor, place: Location) -> bool {
        let (_, device) = self.device(place);
        let claims = self.taken.get(&device.id);
        match self.want(at).is_admin {
            true => claims.is_some_and(|claims| claims.contains(&at.claim)),
            false => {
                self.allocator.allocated.is_whole(&device.id)
                    || claims.is_some_and(|claims| !claims.is_empty())
            }
        }
    }

    /// Whether the device matches class and request, and can be used on the node.
    fn fits(&mut self, at: Cursor, place: Location) -> Result<bool, Fault> {
        let key = (place.pool, place.slice, place.device, at.claim, at.request, at.alternative);
        if let Some(known) = self.fits.get(&key) {
            return Ok(*known);
        }
        let (slice, device) = self.device(place);
        let want = self.want(at);
        let class = want.class.metadata.name.as_deref().unwrap_or("");
        let of_class = want.class.spec.selectors.as_deref().unwrap_or_default();
        let claim = || claim_key(self.claims[at.claim].claim);
        let fits = self.selected(device, of_class, || format!("class {class}"))?
            && self.selected(device, want.selectors, || format!("claim {}", claim()))?
            && (!slice.per_device || device.placement.includes(self.node));
        self.fits.insert(key, fits);
        Ok(fits)
    }

    fn selected(
        &self,
        device: &Device,
        selectors: &[k8s_openapi::api::resource::v1::DeviceSelector],
        whose: impl Fn() -> String,
    ) -> Result<bool, Fault> {
        for (at, selector) in selectors.iter().enumerate() {
            let fault = |why: &str| Fault::Claim(format!("{}: selector #{at}: {why}", whose()));
            let Some(rule) = &selector.cel else {
                return Err(fault("CEL expression empty (unsupported selector type?)"));
            };
            let value =
                device.value.as_ref().map_err(|why| fault(&format!("CEL runtime error: {why}")))?;
            let matches = self.allocator.selectors.matches(&rule.expression, value);
            if !matches.map_err(|why| fault(&why))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn suffices(&self, at: Cursor, place: Location) -> bool {
        let (_, device) = self.device(place);
        let picked = self.shares.get(&device.id).map(|(_, sum)| sum);
        let taken = [self.allocator.allocated.shares(&device.id), picked];
        capacity::suffices(&self.want(at).capacity, &device.capacity, taken)
    }

    /// Picks a device that fits, unless taints, constraints or counters are against it.
    fn pick(&mut self, at: Cursor, place: Location, must: bool) -> Result<bool, Fault> {
        let (slice, device) = self.device(place);
        let want = self.want(at);
        let tolerations = want.tolerations.map_or(&[][..], Vec::as_slice);
        if keeps_away(&device.taints, tolerations) {
            return Ok(false);
        }
        let share =
            device.is_shared.then(|| capacity::consumption(&want.capacity, &device.capacity));
        if !self.constrain(at, device) {
            if !must {
                return Ok(false);
            }
            // A claim for all devices that forbids some of them makes no sense on any node.
            return Err(Fault::Claim(format!(
                "claim {}, request {}: cannot add device {} because a claim constraint would not be \
                 satisfied",
                claim_key(self.claims[at.claim].claim),
                self.want(at).name,
                device.id
            )));
        }
        if !self.is_shared_already(device) && !self.take_counters(place, device) {
            self.unconstrain(at);
            return Ok(false);
        }
        let share = share.map(|amounts| ((self.allocator.environment.share_id)(), amounts));
        match &share {
            None => drop(self.taken.entry(&device.id).or_default().insert(at.claim)),
            Some((_, amounts)) => {
                let (count, sum) = self.shares.entry(&device.id).or_default();
                *count += 1;
                change(sum, amounts, |sum, amount| sum + amount);
            }
        }
        let (request, alternative) = (at.request, at.alternative);
        self.claims[at.claim].picked.push(Picked { slice, device, request, alternative, share });
        Ok(true)
    }

    /// Whether a share of the device is taken: its counters were taken with the first one.
    fn is_shared_already(&self, device: &Device) -> bool {
        device.is_shared
            && (self.allocator.allocated.shares(&device.id).is_some()
                || self.shares.get(&device.id).is_some_and(|(count, _)| *count > 0))
    }

    fn take_counters(&mut self, place: Location, device: &'s Device) -> bool {
        if device.consumes.is_empty() {
            return true;
        }
        let (pools, allocated) = (&self.pools, self.allocator.allocated);
        let counters = self.counters.entry(place.pool);
        counters.or_insert_with(|| Counters::of(&pools[place.pool], allocated)).take(device)
    }

    /// Names of the request and of the alternative at the cursor, as constraints have them.
    fn names(&self, at: Cursor) -> (&'s str, Option<&'s str>) {
        let entry = &self.claims[at.claim].entries[at.request];
        (entry.name, entry.has_alternatives.then(|| entry.wants[at.alternative].name))
    }

    /// Adds the device to all constraints of the claim, or to none.
    fn constrain(&mut self, at: Cursor, device: &Device) -> bool {
        let (request, alternative) = self.names(at);
        let constraints = &mut self.claims[at.claim].constraints;
        for reached in 0..constraints.len() {
            if !constraints[reached].add(request, alternative, device) {
                constraints[..reached].iter_mut().for_each(|c| c.remove(request, alternative));
                return false;
            }
        }
        true
    }

    fn unconstrain(&mut self, at: Cursor) {
        let (request, alternative) = self.names(at);
        for constraint in &mut self.claims[at.claim].constraints {
            constraint.remove(request, alternative);
        }
    }

    /// Undoes the last [`Search::pick`].
    fn put_back(&mut self, at: Cursor, place: Location) {
        let Some(picked) = self.claims[at.claim].picked.pop() else { return };
        let device = picked.device;
        self.unconstrain(at);
        match &picked.share {
            None => {
                if let Some(claims) = self.taken.get_mut(&device.id) {
                    claims.remove(&at.claim);
                }
            }
            Some((_, amounts)) => {
                if let Some((count, sum)) = self.shares.get_mut(&device.id) {
                    *count -= 1;
                    change(sum, amounts, |sum, amount| sum - amount);
                }
            }
        }
        if !self.is_shared_already(device)
            && let Some(counters) = self.counters.get_mut(&place.pool)
        {
            counters.give_back(device);
        }
    }

    fn results(&self) -> Result<Vec<AllocationResult>, Fault> {
        let result = |claim: &Claim<'_>| {
            allocation(claim.claim, &claim.entries, &claim.picked, self.node.name).map_err(|why| {
                let name = claim.claim.metadata.name.as_deref().unwrap_or("");
                Fault::Claim(format!("create NodeSelector for claim {name}: {why}"))
            })
        };
        self.claims.iter().map(result).collect()
    }
}

fn change(
    sums: &mut Amounts,
    by: &Amounts,
    how: impl Fn(api::quantity::Quantity, api::quantity::Quantity) -> api::quantity::Quantity,
) {
    for (name, amount) in by {
        let sum = sums.entry(name.clone()).or_insert(api::quantity::Quantity::ZERO);
        *sum = how(*sum, *amount);
    }
}
