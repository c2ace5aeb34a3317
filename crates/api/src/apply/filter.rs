//! Which differences a request may own: the part of an object that its path writes to.

use super::set::FieldSet;

/// Fields that are dropped, or the only ones that are kept.
#[derive(Debug, Clone)]
pub enum Filter {
    /// Without these and everything below them.
    Except(FieldSet),
    /// Only what lies on or below these; `*` stands for any step.
    Only(&'static [&'static [&'static str]]),
}

impl Filter {
    /// Lets everything pass.
    pub fn none() -> Filter {
        Filter::Except(FieldSet::new())
    }

    pub fn apply(&self, mut set: FieldSet) -> FieldSet {
        match self {
            Filter::Except(dropped) => {
                set.subtract_below(dropped);
                set
            }
            Filter::Only(patterns) => set.matching(patterns),
        }
    }
}
