//! Sets of fields: a tree of path elements in which a node may be a member, have children, or both.

use serde_json::{Map, Value, json};

use super::element::{Element, Path};
use super::node::Node;
use super::nodes::Nodes;
use crate::schema::Schema;

/// Which fields, as `fieldsV1` says it. No subtree is ever empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSet {
    nodes: Nodes,
}

/// What a set says of one element: that it is a member, and what is in the set below it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Branch {
    pub(super) member: bool,
    pub(super) below: FieldSet,
}

impl Branch {
    pub(super) fn is_empty(&self) -> bool {
        !self.member && self.below.is_empty()
    }
}

impl FieldSet {
    pub fn new() -> FieldSet {
        FieldSet::default()
    }

    /// The set of these paths, of field names only: `metadata.name`.
    pub fn of_fields(paths: &[&str]) -> FieldSet {
        let mut set = FieldSet::new();
        for path in paths {
            set.insert(&path.split('.').map(Element::field).collect::<Vec<_>>());
        }
        set
    }

    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    pub fn insert(&mut self, path: &[Element]) {
        if let [first, rest @ ..] = path {
            let branch = self.nodes.or_default(first.clone());
            match rest {
                [] => branch.member = true,
                _ => branch.below.insert(rest),
            }
        }
    }

    pub fn contains(&self, path: &[Element]) -> bool {
        match path {
            [] => false,
            [last] => self.has(last),
            [first, rest @ ..] => self.below(first).is_some_and(|set| set.contains(rest)),
        }
    }

    /// Is the element itself a member?
    pub fn has(&self, element: &Element) -> bool {
        self.nodes.get(element).is_some_and(|branch| branch.member)
    }

    /// What is in the set below the element, unless nothing is.
    pub fn below(&self, element: &Element) -> Option<&FieldSet> {
        self.nodes.get(element).map(|branch| &branch.below).filter(|below| !below.is_empty())
    }

    /// Puts a whole branch in, unless there is nothing in it.
    pub(super) fn put(&mut self, element: &Element, branch: Branch) {
        if !branch.is_empty() {
            self.nodes.insert(element.clone(), branch);
        }
    }

    /// The set of branches that are sorted by element, none of them empty or there twice.
    pub(super) fn of_branches(branches: Vec<(Element, Branch)>) -> FieldSet {
        FieldSet { nodes: Nodes::sorted(branches) }
    }

    pub(super) fn branches(&self) -> impl Iterator<Item = (&Element, &Branch)> {
        self.nodes.iter()
    }

    #[must_use]
    pub fn union(mut self, other: FieldSet) -> FieldSet {
        self.extend(other);
        self
    }

    pub fn extend(&mut self, other: FieldSet) {
        if self.nodes.is_empty() {
            self.nodes = other.nodes;
            return;
        }
        for (element, theirs) in other.nodes.into_entries() {
            let ours = self.nodes.or_default(element);
            ours.member |= theirs.member;
            ours.below.extend(theirs.below);
        }
    }

    pub fn intersection(&self, other: &FieldSet) -> FieldSet {
        self.combine(|element, ours| {
            let theirs = other.nodes.get(element)?;
            let below = ours.below.intersection(&theirs.below);
            Some(Branch { member: ours.member && theirs.member, below })
        })
    }

    /// The same as [`FieldSet::difference`], of which only the result takes memory.
    pub fn minus(&self, other: &FieldSet) -> FieldSet {
        self.combine(|element, ours| match other.nodes.get(element) {
            None => Some(ours.clone()),
            Some(theirs) => Some(Branch {
                member: ours.member && !theirs.member,
                below: ours.below.minus(&theirs.below),
            }),
        })
    }

    /// Without the other's members; what is below a member stays unless it is a member too.
    #[must_use]
    pub fn difference(mut self, other: &FieldSet) -> FieldSet {
        self.subtract(other);
        self
    }

    /// Takes the other's members out, but not what is below them.
    pub fn subtract(&mut self, other: &FieldSet) {
        self.take(other, |ours, theirs| {
            ours.member &= !theirs.member;
            ours.below.subtract(&theirs.below);
        });
    }

    /// Takes the other's members out with everything below them.
    pub fn subtract_below(&mut self, other: &FieldSet) {
        self.take(other, |ours, theirs| match theirs.member {
            true => *ours = Branch::default(),
            false => ours.below.subtract_below(&theirs.below),
        });
    }

    fn take(&mut self, other: &FieldSet, each: impl Fn(&mut Branch, &Branch)) {
        for (element, theirs) in other.nodes.iter() {
            if let Some(ours) = self.nodes.get_mut(element) {
                each(ours, theirs);
                if ours.is_empty() {
                    self.nodes.remove(element);
                }
            }
        }
    }

    fn combine(&self, each: impl Fn(&Element, &Branch) -> Option<Branch>) -> FieldSet {
        let made = self.nodes.iter().filter_map(|(element, ours)| {
            let branch = each(element, ours).filter(|branch| !branch.is_empty())?;
            Some((element.clone(), branch))
        });
        FieldSet { nodes: made.collect() }
    }

    /// Keeps what lies on or below one of the patterns; `*` stands for any step.
    pub fn matching(&self, patterns: &[&[&str]]) -> FieldSet {
        self.combine(|element, ours| {
            let hits = |p: &&&[&str]| match (p.first(), element) {
                (Some(&"*"), _) => true,
                (Some(name), Element::Field(field)) => **name == **field,
                _ => false,
            };
            let deeper: Vec<&[&str]> = patterns.iter().filter(hits).map(|p| &p[1..]).collect();
            if deeper.is_empty() {
                return None;
            }
            if deeper.iter().any(|p| p.is_empty()) {
                return Some(ours.clone());
            }
            Some(Branch { member: ours.member, below: ours.below.matching(&deeper) })
        })
    }

    /// Makes the fields of structs members wherever something below them is in the set.
    #[must_use]
    pub fn with_named_fields(&self, schema: &Schema, node: &Node<'_>) -> FieldSet {
        self.combine(|element, ours| {
            let named = matches!(element, Element::Field(name) if node.declares(schema, name));
            let below = match ours.below.is_empty() {
                true => FieldSet::new(),
                false => ours.below.with_named_fields(schema, &node.child(schema, element)),
            };
            Some(Branch { member: ours.member || (named && !below.is_empty()), below })
        })
    }

    /// Members that have no members below them.
    pub fn leaves(&self) -> FieldSet {
        self.combine(|_, ours| {
            let below = ours.below.leaves();
            Some(Branch { member: ours.member && ours.below.is_empty(), below })
        })
    }

    /// All members; at each level the members come before what is below them, as errors list them.
    pub fn paths(&self) -> Vec<Path> {
        let mut found = Vec::new();
        self.collect_paths(&mut Vec::new(), &mut found);
        found
    }

    fn collect_paths(&self, at: &mut Vec<Element>, found: &mut Vec<Path>) {
        for (element, _) in self.nodes.iter().filter(|(_, branch)| branch.member) {
            found.push(Path(at.iter().chain([element]).cloned().collect()));
        }
        for (element, branch) in self.nodes.iter() {
            at.push(element.clone());
            branch.below.collect_paths(at, found);
            at.pop();
        }
    }

    /// The `fieldsV1` form.
    pub fn to_json(&self) -> Value {
        let entry = |(element, branch): (&Element, &Branch)| {
            let mut below = branch.below.to_json();
            if branch.member && !branch.below.is_empty() {
                below["."] = json!({});
            }
            (element.encode(), below)
        };
        Value::Object(self.nodes.iter().map(entry).collect::<Map<_, _>>())
    }

    /// Reads `fieldsV1`; elements of unknown form are passed over.
    pub fn from_json(json: &Value) -> FieldSet {
        let mut set = FieldSet::new();
        for (key, value) in json.as_object().into_iter().flatten() {
            let Some(element) = Element::parse(key) else { continue };
            let below = FieldSet::from_json(value);
            let member = below.is_empty() || value.get(".").is_some();
            set.nodes.insert(element, Branch { member, below });
        }
        set
    }
}
