//! The children of a node of a field set, sorted by element.
//!
//! Most nodes have one or two children (an item's key and its value), for which a B-tree's leaf of eleven
//! places takes five times the memory; wide lists and maps need the tree's insertion cost.

use std::collections::BTreeMap;

use super::element::Element;
use super::set::Branch;

/// Most children that are kept in a vector.
const FEW_MAX: usize = 8;

#[derive(Debug, Clone)]
pub(super) enum Nodes {
    Few(Vec<(Element, Branch)>),
    Many(BTreeMap<Element, Branch>),
}

impl Default for Nodes {
    fn default() -> Nodes {
        Nodes::Few(Vec::new())
    }
}

impl Nodes {
    /// Of children that are sorted, and none there twice.
    pub(super) fn sorted(mut children: Vec<(Element, Branch)>) -> Nodes {
        if children.len() > FEW_MAX {
            return Nodes::Many(children.into_iter().collect());
        }
        children.shrink_to_fit();
        Nodes::Few(children)
    }

    pub(super) fn is_empty(&self) -> bool {
        match self {
            Nodes::Few(few) => few.is_empty(),
            Nodes::Many(many) => many.is_empty(),
        }
    }

    pub(super) fn get(&self, element: &Element) -> Option<&Branch> {
        match self {
            Nodes::Few(few) => few.iter().find(|(of, _)| of == element).map(|(_, branch)| branch),
            Nodes::Many(many) => many.get(element),
        }
    }

    pub(super) fn get_mut(&mut self, element: &Element) -> Option<&mut Branch> {
        match self {
            Nodes::Few(few) => {
                few.iter_mut().find(|(of, _)| of == element).map(|(_, branch)| branch)
            }
            Nodes::Many(many) => many.get_mut(element),
        }
    }

    pub(super) fn remove(&mut self, element: &Element) {
        match self {
            Nodes::Few(few) => few.retain(|(of, _)| of != element),
            Nodes::Many(many) => drop(many.remove(element)),
        }
    }

    pub(super) fn insert(&mut self, element: Element, branch: Branch) {
        *self.or_default(element) = branch;
    }

    /// The branch of the element, made when there is none.
    pub(super) fn or_default(&mut self, element: Element) -> &mut Branch {
        if let Nodes::Few(few) = self
            && few.len() == FEW_MAX
            && few.binary_search_by(|(of, _)| of.cmp(&element)).is_err()
        {
            *self = Nodes::Many(std::mem::take(few).into_iter().collect());
        }
        match self {
            Nodes::Many(many) => many.entry(element).or_default(),
            Nodes::Few(few) => {
                let at = few.binary_search_by(|(of, _)| of.cmp(&element)).unwrap_or_else(|at| {
                    if few.is_empty() {
                        // A vector would start with room for four.
                        few.reserve_exact(1);
                    }
                    few.insert(at, (element, Branch::default()));
                    at
                });
                &mut few[at].1
            }
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Element, &Branch)> {
        let (few, many) = match self {
            Nodes::Few(few) => (&few[..], None),
            Nodes::Many(many) => (&[][..], Some(many)),
        };
        few.iter().map(|(element, branch)| (element, branch)).chain(many.into_iter().flatten())
    }

    pub(super) fn into_entries(self) -> impl Iterator<Item = (Element, Branch)> {
        let (few, many) = match self {
            Nodes::Few(few) => (few, None),
            Nodes::Many(many) => (Vec::new(), Some(many)),
        };
        few.into_iter().chain(many.into_iter().flatten())
    }
}

impl FromIterator<(Element, Branch)> for Nodes {
    fn from_iter<I: IntoIterator<Item = (Element, Branch)>>(entries: I) -> Nodes {
        let mut nodes = Nodes::default();
        for (element, branch) in entries {
            nodes.insert(element, branch);
        }
        nodes
    }
}

impl PartialEq for Nodes {
    fn eq(&self, other: &Nodes) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Nodes {}

#[cfg(test)]
mod tests {
    use super::*;

    fn member() -> Branch {
        Branch { member: true, ..Branch::default() }
    }

    #[test]
    fn few_and_many_hold_the_same() {
        let names: Vec<String> = (0..3 * FEW_MAX).map(|n| format!("{:02}", n * 7 % 24)).collect();
        let of = |names: &[String]| -> Nodes {
            names.iter().map(|name| (Element::field(name), member())).collect()
        };
        for count in 0..names.len() {
            let mut nodes = of(&names[..count]);
            assert_eq!(matches!(nodes, Nodes::Many(_)), count > FEW_MAX);
            let mut sorted = names[..count].to_vec();
            sorted.sort();
            let found: Vec<Element> = nodes.iter().map(|(element, _)| element.clone()).collect();
            assert_eq!(found, sorted.iter().map(|name| Element::field(name)).collect::<Vec<_>>());
            for (at, name) in names[..count].iter().enumerate().rev() {
                let element = Element::field(name);
                assert!(nodes.get(&element).is_some_and(|branch| branch.member));
                nodes.remove(&element);
                assert!(nodes.get_mut(&element).is_none());
                assert_eq!(nodes, of(&names[..at]));
            }
            assert!(nodes.is_empty());
        }
    }
}
