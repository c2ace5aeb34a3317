//! Answers that are remembered for pods of one kind.
//!
//! Filters and scores that look at one node only give the same answer to every pod of a signature for as
//! long as the node stays as it is. So the second of many equal pods costs one comparison a node, and only
//! the nodes that changed since are looked at again.

use std::collections::HashMap;
use std::sync::Arc;

use crate::framework::{Cycle, Plugin, Status, Verdict};
use crate::pod::PodInfo;
use crate::snapshot::Snapshot;

/// Kinds of pods that are remembered; the one that was not seen the longest goes first. A kind takes 40
/// bytes a node.
const KINDS_MAX: usize = 32;

#[derive(Debug, Default)]
pub(crate) struct Memo {
    kinds: HashMap<Arc<str>, Kind>,
    clock: u64,
    /// Used for pods that have no signature.
    scratch: Kind,
}

#[derive(Debug, Default)]
struct Kind {
    /// By slot.
    verdicts: Vec<Remembered<Option<Arc<Status>>>>,
    scores: Vec<Remembered<i64>>,
    /// The plugins whose scores are summed up here.
    scored_by: Vec<&'static str>,
    used: u64,
}

/// An answer about a node in one of its states.
#[derive(Debug, Clone, Default)]
struct Remembered<T> {
    generation: u64,
    answer: T,
}

/// The verdicts of one kind.
pub(super) struct Verdicts<'a> {
    kind: &'a mut Kind,
    remembers: bool,
}

impl Memo {
    pub(super) fn verdicts(&mut self, pod: &PodInfo) -> Verdicts<'_> {
        let remembers = pod.signature.is_some();
        Verdicts { kind: self.kind(pod), remembers }
    }

    /// The weighted sum of scores that depend on nothing but the pod's kind and the node.
    pub(super) fn scores(
        &mut self,
        cycle: &Cycle<'_>,
        nodes: &[u32],
        plugins: &[(&Arc<dyn Plugin>, i64)],
    ) -> Vec<i64> {
        let remembers = cycle.pod.signature.is_some();
        let kind = self.kind(cycle.pod);
        if !remembers || !plugins.iter().map(|(p, _)| p.name()).eq(kind.scored_by.iter().copied()) {
            kind.scores.clear();
            kind.scored_by = plugins.iter().map(|(p, _)| p.name()).collect();
        }
        let score = |slot: &u32| {
            let at = *slot as usize;
            let generation = cycle.snapshot.generation(*slot);
            if kind.scores.len() <= at {
                kind.scores.resize(at + 1, Remembered::default());
            }
            let known = &mut kind.scores[at];
            if known.generation != generation {
                let node = cycle.snapshot.node(*slot);
                known.answer =
                    plugins.iter().map(|(plugin, weight)| plugin.score(cycle, node) * weight).sum();
                known.generation = generation;
            }
            known.answer
        };
        nodes.iter().map(score).collect()
    }

    fn kind(&mut self, pod: &PodInfo) -> &mut Kind {
        self.clock += 1;
        let Some(signature) = &pod.signature else {
            self.scratch = Kind::default();
            return &mut self.scratch;
        };
        if !self.kinds.contains_key(signature) && self.kinds.len() >= KINDS_MAX {
            let oldest = self.kinds.iter().min_by_key(|(_, kind)| kind.used);
            if let Some(oldest) = oldest.map(|(signature, _)| signature.clone()) {
                self.kinds.remove(&oldest);
            }
        }
        let clock = self.clock;
        let kind = self.kinds.entry(signature.clone()).or_default();
        kind.used = clock;
        kind
    }
}

impl Verdicts<'_> {
    pub(super) fn check(
        &mut self,
        snapshot: &Snapshot,
        slot: u32,
        find: impl FnOnce() -> Verdict,
    ) -> Verdict {
        if !self.remembers {
            return find();
        }
        let (at, generation) = (slot as usize, snapshot.generation(slot));
        if self.kind.verdicts.len() <= at {
            self.kind.verdicts.resize(at + 1, Remembered::default());
        }
        let known = &mut self.kind.verdicts[at];
        if known.generation != generation {
            known.answer = find().err();
            known.generation = generation;
        }
        known.answer.clone().map_or(Ok(()), Err)
    }
}
