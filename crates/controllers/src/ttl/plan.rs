//! How long, by the number of nodes. Steps overlap, so that a cluster at their edge does not go to and fro.

pub(crate) const ANNOTATION: &str = "node.alpha.kubernetes.io/ttl";

/// Nodes from, nodes to, seconds.
const STEPS: [(usize, usize, u32); 5] =
    [(0, 100, 0), (90, 500, 15), (450, 1000, 30), (900, 2000, 60), (1800, usize::MAX, 300)];

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Step(usize);

impl Step {
    /// The step for so many nodes, starting from this one.
    pub(crate) fn with(self, nodes: usize) -> Step {
        let mut at = self.0;
        while nodes > STEPS[at].1 {
            at += 1;
        }
        while nodes < STEPS[at].0 {
            at -= 1;
        }
        Step(at)
    }

    pub(crate) fn seconds(self) -> u32 {
        STEPS[self.0].2
    }
}
