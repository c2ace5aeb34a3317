//! The planner: one scheduling cycle after the other, on a thread where it may take its time, under no
//! lock but for the moments when it takes a pod, learns what changed, and says what it decided.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::algorithm::{Decision, Failure, NO_NODES, Search};
use crate::core::Profiles;
use crate::framework::{CycleState, Victims};
use crate::pod::PodInfo;
use crate::profile::Profile;
use crate::snapshot::Snapshot;

#[derive(Debug, Default)]
pub(crate) struct Planner {
    pub(crate) snapshot: Snapshot,
    /// By profile.
    searches: HashMap<String, Search>,
}

/// What came of a cycle.
#[derive(Debug)]
pub(crate) enum Outcome {
    Bind(Bind),
    /// No node would do.
    Unschedulable {
        message: String,
        rejectors: BTreeSet<&'static str>,
        /// Whose end makes room, and where.
        victims: Option<Victims>,
        clear_nomination: bool,
    },
    /// Something went wrong.
    Failed(String),
}

/// A pod and the node that is to run it.
#[derive(Debug)]
pub(crate) struct Bind {
    pub(crate) profile: Arc<Profile>,
    pub(crate) node: Arc<str>,
    pub(crate) slot: u32,
    pub(crate) state: CycleState,
}

impl Planner {
    /// One scheduling cycle.
    pub(crate) fn plan(&mut self, profiles: &Profiles, pod: &Arc<PodInfo>) -> Outcome {
        let Some(profile) = profiles.of(pod) else {
            let name = pod.scheduler_name();
            return Outcome::Failed(format!("profile not found for scheduler name \"{name}\""));
        };
        if !self.searches.contains_key(&profile.name) {
            self.searches.insert(profile.name.clone(), Search::default());
        }
        let search = self.searches.get_mut(&profile.name).expect("it was put there");
        match search.schedule(profile, &mut self.snapshot, pod) {
            Ok(Decision { slot, node, state }) => {
                self.snapshot.release(slot);
                Outcome::Bind(Bind { profile: profile.clone(), node, slot, state })
            }
            Err(Failure::NoNodes) => Outcome::Unschedulable {
                message: NO_NODES.into(),
                rejectors: BTreeSet::new(),
                victims: None,
                clear_nomination: true,
            },
            Err(Failure::Fit(fit)) => Outcome::Unschedulable {
                message: fit.explained(),
                rejectors: fit.rejectors,
                victims: fit.nominated,
                clear_nomination: fit.clear_nomination,
            },
            Err(Failure::Error(why)) => Outcome::Failed(why),
        }
    }
}
