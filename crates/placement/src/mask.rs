//! Sets of NUMA nodes, and hints made of them.

/// A set of NUMA nodes (at most 64, as upstream's).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct NumaMask(u64);

impl NumaMask {
    /// Nodes beyond the 64th are left out.
    pub fn of(nodes: impl IntoIterator<Item = usize>) -> NumaMask {
        let bits = nodes.into_iter().filter(|node| *node < 64).map(|node| 1 << node);
        NumaMask(bits.fold(0, |all, bit: u64| all | bit))
    }

    pub fn contains(self, node: usize) -> bool {
        node < 64 && self.0 & (1 << node) != 0
    }

    pub fn count(self) -> usize {
        self.0.count_ones() as usize
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn nodes(self) -> impl Iterator<Item = usize> {
        (0..64).filter(move |node| self.contains(*node))
    }

    #[must_use]
    pub fn and(self, other: NumaMask) -> NumaMask {
        NumaMask(self.0 & other.0)
    }

    /// Of two masks of one size, the one of lower nodes is the narrower.
    pub fn is_narrower_than(self, other: NumaMask) -> bool {
        match self.count() == other.count() {
            true => self.0 < other.0,
            false => self.count() < other.count(),
        }
    }

    /// All combinations of these nodes, the small ones first.
    pub fn combinations(nodes: &[usize]) -> Vec<NumaMask> {
        let sizes = 1..=nodes.len();
        let all = sizes.flat_map(|size| crate::combine::combinations(nodes, size));
        all.map(NumaMask::of).collect()
    }
}

/// Nodes that could serve a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hint {
    /// `None`: any.
    pub nodes: Option<NumaMask>,
    pub preferred: bool,
}

impl Hint {
    pub fn new(nodes: NumaMask, preferred: bool) -> Hint {
        Hint { nodes: Some(nodes), preferred }
    }

    pub fn any(preferred: bool) -> Hint {
        Hint { nodes: None, preferred }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn combinations_come_by_size_then_by_node() {
        let all: Vec<Vec<usize>> =
            NumaMask::combinations(&[0, 1, 3]).into_iter().map(|m| m.nodes().collect()).collect();
        let expected: [&[usize]; 7] = [&[0], &[1], &[3], &[0, 1], &[0, 3], &[1, 3], &[0, 1, 3]];
        assert_eq!(all, expected);
    }

    #[test]
    fn fewer_nodes_are_narrower_then_lower_ones() {
        let of = |nodes: &[usize]| NumaMask::of(nodes.iter().copied());
        assert!(of(&[3]).is_narrower_than(of(&[0, 1])));
        assert!(of(&[0]).is_narrower_than(of(&[1])));
        assert!(!of(&[1]).is_narrower_than(of(&[1])));
    }
}
