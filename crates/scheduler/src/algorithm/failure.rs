//! Why a cycle found no node, in upstream's words.

use std::collections::BTreeSet;

use crate::framework::{NodeStatuses, Victims};
use crate::tally::Tally;

pub(crate) const NO_NODES: &str = "no nodes available to schedule pods";

#[derive(Debug)]
pub(crate) enum Failure {
    NoNodes,
    Fit(Box<FitError>),
    /// Something went wrong that may go right the next time.
    Error(String),
}

/// No node would do.
#[derive(Debug, Default)]
pub(crate) struct FitError {
    nodes: usize,
    reasons: Tally,
    pub(crate) pre_filter_message: String,
    pub(crate) post_filter_message: String,
    /// The plugins that rejected nodes: only what concerns them can change the answer.
    pub(crate) rejectors: BTreeSet<&'static str>,
    /// Where room can be made, and by whose end.
    pub(crate) nominated: Option<Victims>,
    /// The room that was kept for the pod is of no use.
    pub(crate) clear_nomination: bool,
    /// What would have to change for the pod to fit.
    pub(crate) why: String,
}

impl FitError {
    pub(crate) fn new(nodes: usize, statuses: &NodeStatuses) -> FitError {
        let mut fit = FitError { nodes, ..FitError::default() };
        for (_, status) in &statuses.explicit {
            fit.reasons.add(&status.reasons, 1);
            if !fit.rejectors.contains(status.plugin) {
                fit.rejectors.insert(status.plugin);
            }
        }
        if let Some(absent) = &statuses.absent {
            fit.reasons.add(&absent.reasons, nodes - statuses.explicit.len());
            fit.rejectors.insert(absent.plugin);
        }
        fit
    }

    /// `0/3 nodes are available: …`, as upstream says it.
    pub(crate) fn message(&self) -> String {
        let mut message = format!("0/{} nodes are available:", self.nodes);
        if !self.pre_filter_message.is_empty() {
            message += &format!(" {}.", self.pre_filter_message);
        } else if !self.reasons.is_empty() {
            message += &format!(" {}", self.reasons.sentence());
        }
        if !self.post_filter_message.is_empty() {
            message += &format!(" {}", self.post_filter_message);
        }
        message
    }

    /// [`FitError::message`], and after it what would have to change.
    pub(crate) fn explained(&self) -> String {
        match self.why.as_str() {
            "" => self.message(),
            why => format!("{} {why}", self.message()),
        }
    }
}
