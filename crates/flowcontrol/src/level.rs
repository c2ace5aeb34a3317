//! A priority level at work: its seats, and who waits for one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::demand::Demand;
use crate::lending::Need;
use crate::queues::Queues;
use crate::settings::Settings;

/// Why a request is sent away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// All seats are taken, and the level has no queues.
    ConcurrencyLimit,
    /// Its queue is as long as it may be.
    QueueFull,
    /// It has waited as long as it may.
    TimeOut,
}

impl Refusal {
    pub(crate) const ALL: [Refusal; 3] =
        [Refusal::ConcurrencyLimit, Refusal::QueueFull, Refusal::TimeOut];

    /// As metrics name it.
    pub fn name(self) -> &'static str {
        match self {
            Refusal::ConcurrencyLimit => "concurrency-limit",
            Refusal::QueueFull => "queue-full",
            Refusal::TimeOut => "time-out",
        }
    }
}

#[derive(Debug)]
pub(crate) struct Level {
    state: Mutex<State>,
    ids: AtomicU64,
}

#[derive(Debug)]
struct State {
    settings: Settings,
    /// Seats that are its own by its shares.
    nominal: u32,
    /// Seats that it has now.
    limit: u32,
    seats: u32,
    requests: u32,
    queues: Option<Queues<oneshot::Sender<()>>>,
    demand: Demand,
    counts: Counts,
}

/// What has happened since the start.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Counts {
    pub(crate) dispatched: u64,
    pub(crate) refused: [u64; 3],
    pub(crate) cancelled: u64,
}

/// A level as debug endpoints and metrics show it.
#[derive(Debug, Clone)]
pub(crate) struct Look {
    pub(crate) settings: Settings,
    pub(crate) nominal: u32,
    pub(crate) limit: u32,
    pub(crate) requests: u32,
    /// Requests and seats of each queue.
    pub(crate) queues: Vec<(usize, u32)>,
    pub(crate) counts: Counts,
}

/// Seats that are held; given back when dropped.
#[derive(Debug)]
pub(crate) struct Seats {
    level: Arc<Level>,
    seats: u32,
}

impl Drop for Seats {
    fn drop(&mut self) {
        let mut state = self.level.state();
        state.seats -= self.seats;
        state.requests -= 1;
        state.dispatch();
    }
}

/// Takes a request out of its queue when nobody waits for it any more.
struct Waiter<'a> {
    level: &'a Level,
    id: u64,
    seats: u32,
    refusal: Option<Refusal>,
    has_seats: bool,
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        if self.has_seats {
            return;
        }
        let mut state = self.level.state();
        let waited = state.queues.as_mut().is_some_and(|queues| queues.forget(self.id));
        if !waited {
            // Its seats came in the same moment.
            state.seats -= self.seats;
            state.requests -= 1;
        }
        match self.refusal {
            Some(refusal) => state.counts.refused[refusal as usize] += 1,
            None => state.counts.cancelled += 1,
        }
        state.dispatch();
    }
}

impl Level {
    pub(crate) fn new(settings: Settings) -> Level {
        let queues = settings.queuing.map(Queues::new);
        let state = State {
            settings,
            nominal: 1,
            limit: 1,
            seats: 0,
            requests: 0,
            queues,
            demand: Demand::new(),
            counts: Counts::default(),
        };
        Level { state: Mutex::new(state), ids: AtomicU64::new(0) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn uid(&self) -> String {
        self.state().settings.uid.clone()
    }

    /// Takes other settings; `nominal` is set apart, when all levels are known.
    pub(crate) fn configure(&self, settings: Settings) {
        let mut state = self.state();
        match (settings.queuing, &mut state.queues) {
            (Some(queuing), Some(queues)) => queues.resize(queuing),
            (Some(queuing), none) => *none = Some(Queues::new(queuing)),
            // Who waits still gets a seat; nobody comes after them.
            (None, Some(queues)) if queues.load().0 > 0 => {}
            (None, queues) => *queues = None,
        }
        state.settings = settings;
        state.dispatch();
    }

    /// Its seats by its shares; until the next period it has just these.
    pub(crate) fn set_nominal(&self, seats: u32) {
        let mut state = self.state();
        if state.nominal != seats {
            (state.nominal, state.limit) = (seats, seats);
            state.dispatch();
        }
    }

    pub(crate) fn set_limit(&self, seats: u32) {
        let mut state = self.state();
        state.limit = seats.max(1);
        state.dispatch();
    }

    /// Ends a period: what it needs of `total` seats. Exempt levels lend what they do not use, and take what
    /// they use.
    pub(crate) fn need(&self, total: f64) -> Need {
        let mut state = self.state();
        let demand = state.demand.period();
        let nominal = f64::from(state.nominal);
        let part = |percent: u32| (nominal * f64::from(percent) / 100.0).round();
        let kept = nominal - part(state.settings.lendable);
        if state.settings.is_exempt {
            return Need { least: kept.max(demand.min(total)), most: total, target: demand };
        }
        let most = state.settings.borrowing.map_or(total, |percent| nominal + part(percent));
        Need { least: kept, most, target: demand.max(kept).max(1.0) }
    }

    /// Waits for seats, in the queue of the flow, not longer than `patience`.
    pub(crate) async fn enter(
        self: &Arc<Level>,
        flow: u64,
        seats: u32,
        patience: Duration,
    ) -> Result<Seats, Refusal> {
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        let Some(granted) = self.begin(flow, (id, seats))? else {
            return Ok(Seats { level: self.clone(), seats });
        };
        let mut waiter = Waiter { level: self, id, seats, refusal: None, has_seats: false };
        match tokio::time::timeout(patience, granted).await {
            Ok(Ok(())) => {
                waiter.has_seats = true;
                Ok(Seats { level: self.clone(), seats })
            }
            _ => {
                waiter.refusal = Some(Refusal::TimeOut);
                Err(Refusal::TimeOut)
            }
        }
    }

    /// Seats at once (`None`), or a place in a queue.
    fn begin(
        &self,
        flow: u64,
        (id, seats): (u64, u32),
    ) -> Result<Option<oneshot::Receiver<()>>, Refusal> {
        let mut state = self.state();
        let state = &mut *state;
        let is_queued = state.queues.as_ref().is_some_and(|queues| queues.load().0 > 0);
        if state.settings.is_exempt || (!is_queued && state.fits(seats)) {
            state.start(seats);
            return Ok(None);
        }
        let refuse = |refusal: Refusal, counts: &mut Counts| {
            counts.refused[refusal as usize] += 1;
            Err(refusal)
        };
        let queues = state.queues.as_mut().filter(|_| state.settings.queuing.is_some());
        let Some(queues) = queues else {
            return refuse(Refusal::ConcurrencyLimit, &mut state.counts);
        };
        let Some(index) = queues.choose(flow) else {
            return refuse(Refusal::QueueFull, &mut state.counts);
        };
        let (ticket, granted) = oneshot::channel();
        queues.put(index, id, seats, ticket);
        state.dispatch();
        Ok(Some(granted))
    }

    pub(crate) fn look(&self) -> Look {
        let state = self.state();
        let queues = state.queues.iter().flat_map(|queues| &queues.all);
        Look {
            settings: state.settings.clone(),
            nominal: state.nominal,
            limit: state.limit,
            requests: state.requests,
            queues: queues.map(|queue| (queue.waiting.len(), queue.seats)).collect(),
            counts: state.counts,
        }
    }
}

impl State {
    /// A request wider than the level has it alone.
    fn fits(&self, seats: u32) -> bool {
        self.seats + seats <= self.limit || self.seats == 0
    }

    fn start(&mut self, seats: u32) {
        self.seats += seats;
        self.requests += 1;
        self.counts.dispatched += 1;
        self.tell_demand();
    }

    fn tell_demand(&mut self) {
        let waiting = self.queues.as_ref().map_or(0, |queues| queues.load().1);
        self.demand.set(f64::from(self.seats + waiting));
    }

    /// Lets in who is next, as long as there are seats.
    fn dispatch(&mut self) {
        loop {
            let next = self.queues.as_ref().and_then(Queues::next);
            let Some((index, seats)) = next.filter(|(_, seats)| self.fits(*seats)) else { break };
            let taken = self.queues.as_mut().and_then(|queues| queues.take(index));
            let Some(waiting) = taken else { break };
            self.start(seats);
            // Whoever is gone by now gives the seats back by the guard that waited.
            waiting.ticket.send(()).unwrap_or_default();
        }
        self.tell_demand();
    }
}
