//! Requests in, seats out.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use auth::{RequestInfo, User};
use serde_json::Value;
use telemetry::{HistogramVec, Registry};

use crate::lending::share;
use crate::level::{Level, Look, Refusal, Seats};
use crate::settings::{Schema, Settings, mandatory};
use crate::tally::{self, Counts, Tally, Working};

/// Between two looks at who needs seats (upstream's `borrowingAdjustmentPeriod`).
const PERIOD: Duration = Duration::from_secs(10);

/// The schema and the level of a request, by name and uid.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    pub schema: String,
    pub schema_uid: String,
    pub level: String,
    pub level_uid: String,
}

/// A request that is worked on; its seats are given back when this is dropped.
#[derive(Debug)]
pub struct Place {
    pub names: Arc<Names>,
    _seats: Seats,
    _working: Working,
}

/// A request that is sent away.
#[derive(Debug)]
pub struct Refused {
    pub names: Arc<Names>,
    pub why: Refusal,
}

/// What is configured.
#[derive(Debug)]
struct Plan {
    /// In the order in which they are asked.
    schemas: Vec<Flow>,
    levels: BTreeMap<String, Arc<Level>>,
}

/// A FlowSchema, and what becomes of its requests.
#[derive(Debug)]
struct Flow {
    schema: Schema,
    names: Arc<Names>,
    tally: Arc<Tally>,
}

/// The flow control of one server.
#[derive(Debug)]
pub struct FlowControl {
    registry: Registry,
    waits: HistogramVec,
    plan: RwLock<Arc<Plan>>,
    /// Seats of all levels together.
    seats: u32,
    patience: Duration,
}

impl FlowControl {
    /// `seats` are shared by all levels; a request waits for some not longer than `patience`. What is mandatory
    /// holds until something is configured.
    pub fn new(seats: u32, patience: Duration) -> FlowControl {
        let plan = RwLock::new(Arc::new(Plan { schemas: Vec::new(), levels: BTreeMap::new() }));
        let registry = Registry::default();
        let waits = tally::waits(&registry);
        let made = FlowControl { registry, waits, plan, seats: seats.max(1), patience };
        made.configure(&[], &[]);
        made
    }

    fn plan(&self) -> Arc<Plan> {
        self.plan.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on these FlowSchemas and PriorityLevelConfigurations hold. Requests under way and in queues
    /// are not touched.
    pub fn configure(&self, schemas: &[Value], levels: &[Value]) {
        let (own_schemas, own_levels) = mandatory();
        let mut settings: BTreeMap<String, Settings> =
            own_levels.into_iter().map(|level| (level.name.clone(), level)).collect();
        settings.extend(levels.iter().map(Settings::of).map(|level| (level.name.clone(), level)));
        let mut all: Vec<Schema> = schemas.iter().map(Schema::of).collect();
        for own in own_schemas {
            if !all.iter().any(|schema| schema.name == own.name) {
                all.push(own);
            }
        }
        // A schema whose level does not exist matches nothing.
        all.retain(|schema| settings.contains_key(&schema.level));
        all.sort_by(|a, b| (a.precedence, &a.name).cmp(&(b.precedence, &b.name)));

        let shares: u32 = settings.values().map(|level| level.shares).sum();
        let former = self.plan();
        let levels = settings.into_iter().map(|(name, settings)| {
            let own = f64::from(self.seats) * f64::from(settings.shares) / f64::from(shares.max(1));
            let level = match former.levels.get(&name) {
                Some(level) => {
                    level.configure(settings);
                    level.clone()
                }
                None => Arc::new(Level::new(settings)),
            };
            level.set_nominal(own.ceil() as u32);
            (name, level)
        });
        let levels: BTreeMap<String, Arc<Level>> = levels.collect();
        let named = |schema: Schema| {
            let names = Names {
                schema: schema.name.clone(),
                schema_uid: schema.uid.clone(),
                level: schema.level.clone(),
                level_uid: levels[&schema.level].uid(),
            };
            let known = former.schemas.iter().map(|flow| &flow.tally);
            let known =
                known.into_iter().find(|t| t.schema == schema.name && t.level == schema.level);
            let tally = known
                .cloned()
                .unwrap_or_else(|| Arc::new(Tally::new(&schema.name, &schema.level, &self.waits)));
            Flow { schema, names: Arc::new(names), tally }
        };
        let plan = Plan { schemas: all.into_iter().map(named).collect(), levels };
        *self.plan.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(plan);
    }

    /// Waits until the request may be worked on. `seats` is how much work it is, as of its verb.
    pub async fn enter(
        &self,
        user: &User,
        info: &RequestInfo,
        seats: impl Fn() -> u32,
    ) -> Result<Place, Refused> {
        let plan = self.plan();
        let (Flow { schema, names, tally }, level) = plan.find(user, info);
        let names = names.clone();
        let mut hasher = DefaultHasher::new();
        (&schema.name, schema.flow(user, info)).hash(&mut hasher);
        let wanted = seats().max(1);
        let arrival = tally.arrive(wanted);
        match level.enter(hasher.finish(), wanted, self.patience).await {
            Ok(seats) => Ok(Place { names, _seats: seats, _working: arrival.let_in() }),
            Err(why) => {
                tally.refuse(why);
                Err(Refused { names, why })
            }
        }
    }

    /// Lends seats to who needs them, for ever.
    pub async fn lend(&self) {
        loop {
            tokio::time::sleep(PERIOD).await;
            self.lend_once();
        }
    }

    pub(crate) fn lend_once(&self) {
        let plan = self.plan();
        let total = f64::from(self.seats);
        let needs: Vec<_> = plan.levels.values().map(|level| level.need(total)).collect();
        for (level, seats) in plan.levels.values().zip(share(&needs, total)) {
            level.set_limit(seats.round() as u32);
        }
    }

    pub(crate) fn looks(&self) -> Vec<Look> {
        self.plan().levels.values().map(|level| level.look()).collect()
    }

    /// `/debug/api_priority_and_fairness/dump_priority_levels`.
    pub fn dump_levels(&self) -> String {
        let mut text = "PriorityLevelName, ActiveQueues, IsIdle, IsQuiescing, WaitingRequests, ExecutingRequests, DispatchedRequests, RejectedRequests, TimedoutRequests, CancelledRequests\n".to_owned();
        for look in self.looks() {
            let waiting: usize = look.queues.iter().map(|(requests, _)| requests).sum();
            let active = look.queues.iter().filter(|(requests, _)| *requests > 0).count();
            let [limit, full, late] = look.counts.refused;
            text += &format!(
                "{}, {active}, {}, false, {waiting}, {}, {}, {}, {late}, {}\n",
                look.settings.name,
                waiting == 0 && look.requests == 0,
                look.requests,
                look.counts.dispatched,
                limit + full,
                look.counts.cancelled,
            );
        }
        text
    }

    /// `/debug/api_priority_and_fairness/dump_queues`: queues in which somebody waits.
    pub fn dump_queues(&self) -> String {
        let mut text = "PriorityLevelName, Index, PendingRequests, InitialSeatsSum\n".to_owned();
        for look in self.looks() {
            let busy = look.queues.iter().enumerate().filter(|(_, (requests, _))| *requests > 0);
            for (index, (requests, seats)) in busy {
                text += &format!("{}, {index}, {requests}, {seats}\n", look.settings.name);
            }
        }
        text
    }

    /// How long requests waited, in Prometheus' text form.
    pub fn waits(&self) -> String {
        self.registry.families()
    }

    /// Figures by schema and by level.
    pub fn figures(&self) -> Vec<Family> {
        let looks = self.looks();
        let each = |name, help, figure: &dyn Fn(&Look) -> f64| {
            let of =
                |look: &Look| (vec![("priority_level", look.settings.name.clone())], figure(look));
            Family { name, kind: "gauge", help, figures: looks.iter().map(of).collect() }
        };
        let plan = self.plan();
        let tallies: Vec<&Tally> = plan.schemas.iter().map(|flow| &*flow.tally).collect();
        let by_schema = |name, kind, help, figure: fn(&Counts) -> f64| {
            let of = |tally: &&Tally| (labels(tally), figure(&tally.read()));
            Family { name, kind, help, figures: tallies.iter().map(of).collect() }
        };
        vec![
            by_schema(
                "apiserver_flowcontrol_dispatched_requests_total",
                "counter",
                "Requests that were worked on.",
                |counts| counts.dispatched,
            ),
            refused(&tallies),
            by_schema(
                "apiserver_flowcontrol_current_executing_requests",
                "gauge",
                "Requests that are worked on.",
                |counts| counts.requests,
            ),
            by_schema(
                "apiserver_flowcontrol_current_executing_seats",
                "gauge",
                "Seats that are taken.",
                |counts| counts.seats,
            ),
            by_schema(
                "apiserver_flowcontrol_current_inqueue_requests",
                "gauge",
                "Requests that wait.",
                |counts| counts.waiting,
            ),
            by_schema(
                "apiserver_flowcontrol_current_inqueue_seats",
                "gauge",
                "Seats that are waited for.",
                |counts| counts.waiting_seats,
            ),
            each("apiserver_flowcontrol_nominal_limit_seats", "Seats by shares.", &|look| {
                f64::from(look.nominal)
            }),
            each(
                "apiserver_flowcontrol_current_limit_seats",
                "Seats with what is lent and borrowed.",
                &|look| f64::from(look.limit),
            ),
        ]
    }
}

fn labels(tally: &Tally) -> Vec<(&'static str, String)> {
    vec![("priority_level", tally.level.clone()), ("flow_schema", tally.schema.clone())]
}

fn refused(tallies: &[&Tally]) -> Family {
    let of = |tally: &&Tally| {
        let counts = Refusal::ALL.map(|why| (why, tally.refused(why)));
        let own = labels(tally);
        counts.into_iter().filter(|(_, count)| *count > 0.0).map(move |(why, count)| {
            let mut labels = own.clone();
            labels.push(("reason", why.name().to_owned()));
            (labels, count)
        })
    };
    let figures = tallies.iter().flat_map(of).collect();
    let name = "apiserver_flowcontrol_rejected_requests_total";
    Family { name, kind: "counter", help: "Requests that were sent away.", figures }
}

/// A family of figures, for metrics.
#[derive(Debug)]
pub struct Family {
    pub name: &'static str,
    /// `counter` or `gauge`.
    pub kind: &'static str,
    pub help: &'static str,
    /// Labels by name, and the figure.
    pub figures: Vec<(Vec<(&'static str, String)>, f64)>,
}

impl Plan {
    /// Every request matches the last schema at the latest: it is mandatory, and its level is.
    fn find(&self, user: &User, info: &RequestInfo) -> (&Flow, &Arc<Level>) {
        let matching = self.schemas.iter().find(|flow| flow.schema.matches(user, info));
        let last = || self.schemas.iter().find(|flow| flow.schema.name == "catch-all");
        let found = matching.or_else(last).unwrap_or(&self.schemas[0]);
        (found, &self.levels[&found.schema.level])
    }
}
