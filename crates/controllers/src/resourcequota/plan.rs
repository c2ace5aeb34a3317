//! What a quota's status shall say has been used.

use std::collections::BTreeSet;

use admission::quota::{Amounts, same};

/// What is known when a quota is looked at.
#[derive(Debug)]
pub(super) struct Known<'a> {
    /// Of the spec.
    pub(super) hard: &'a Amounts,
    /// Of the status.
    pub(super) told_hard: &'a Amounts,
    pub(super) used: &'a Amounts,
    /// What stored objects cost, as far as we see them.
    pub(super) counted: &'a Amounts,
    /// The names that can be counted.
    pub(super) countable: &'a BTreeSet<String>,
    /// What we saw going since the status was last written.
    pub(super) released: &'a Amounts,
    /// Nobody has charged the quota for so long that every object charged is stored and seen.
    pub(super) quiet: bool,
}

#[derive(Debug, PartialEq)]
pub(super) struct Plan {
    /// `used` as it shall be, when anything must be written.
    pub(super) write: Option<Amounts>,
    /// More is charged than we count: look again when it is quiet.
    pub(super) again: bool,
}

/// A charge comes before its object: what is charged and not seen may be under way, so that the
/// count alone lowers nothing until it is quiet. What was seen going is given back at once.
pub(super) fn plan(known: &Known<'_>) -> Plan {
    let (mut used, mut again) = (Amounts::new(), false);
    for name in known.hard.keys() {
        let told = known.used.get(name).copied();
        let counted = known.counted.get(name).copied().unwrap_or(api::quantity::Quantity::ZERO);
        let amount = match told {
            _ if !known.countable.contains(name) => told,
            None => Some(counted),
            Some(_) if known.quiet => Some(counted),
            Some(told) => {
                let left = known.released.get(name).map_or(told, |gone| told - *gone);
                again |= left > counted;
                Some(if left > counted { left } else { counted })
            }
        };
        used.extend(amount.map(|amount| (name.clone(), amount)));
    }
    let current = same(known.hard, known.told_hard) && same(&used, known.used);
    // The status we see may be older than what went: only a write that succeeds tells that it was
    // not, even if it changes nothing.
    let write = !current || !known.released.is_empty();
    Plan { write: write.then_some(used), again }
}

/// What `before` cost and `after` costs no more.
pub(super) fn shrunk(before: &Amounts, after: &Amounts) -> Amounts {
    let less = before.iter().map(|(name, amount)| {
        (name.clone(), after.get(name).map_or(*amount, |after| *amount - *after))
    });
    less.filter(|(_, less)| !less.is_zero() && !less.is_negative()).collect()
}

/// The part of a list that `names` limits.
pub(super) fn masked(list: Amounts, names: &Amounts) -> Amounts {
    list.into_iter().filter(|(name, _)| names.contains_key(name)).collect()
}
