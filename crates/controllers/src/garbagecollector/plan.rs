//! What becomes of an object, given what is known of its owners.

use serde_json::{Value, json};

use super::graph::{FOREGROUND, ORPHAN};

/// What an owner reference leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The owner is there.
    Solid,
    /// There is no such object.
    Dangling,
    /// The owner ends and waits for this object to go first.
    Waiting,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Verdict {
    Keep,
    /// Only these references stay.
    Keeping(Vec<Value>),
    Delete(&'static str),
}

/// `live` is the object as it is now, `fates` what its references lead to, in their order.
pub(crate) fn verdict(live: &Value, fates: &[Fate], has_dependents: bool) -> Verdict {
    if fates.is_empty() {
        return Verdict::Keep;
    }
    let owners = live["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default();
    if fates.contains(&Fate::Solid) {
        let kept: Vec<Value> = owners
            .iter()
            .zip(fates)
            .filter(|(_, fate)| **fate == Fate::Solid)
            .map(|(owner, _)| owner.clone())
            .collect();
        return if kept.len() == owners.len() { Verdict::Keep } else { Verdict::Keeping(kept) };
    }
    if fates.contains(&Fate::Waiting) && has_dependents {
        return Verdict::Delete("Foreground");
    }
    Verdict::Delete(if has_finalizer(live, ORPHAN) {
        "Orphan"
    } else if has_finalizer(live, FOREGROUND) {
        "Foreground"
    } else {
        "Background"
    })
}

pub(crate) fn has_finalizer(live: &Value, finalizer: &str) -> bool {
    live["metadata"]["finalizers"].as_array().is_some_and(|all| all.iter().any(|f| f == finalizer))
}

/// A merge patch that takes one finalizer off; the version makes sure that no other is lost.
pub(crate) fn without_finalizer(live: &Value, finalizer: &str) -> Option<Value> {
    let all = live["metadata"]["finalizers"].as_array()?;
    let rest: Vec<&Value> = all.iter().filter(|f| *f != finalizer).collect();
    (rest.len() < all.len()).then(|| {
        json!({"metadata": {
            "uid": live["metadata"]["uid"],
            "resourceVersion": live["metadata"]["resourceVersion"],
            "finalizers": rest,
        }})
    })
}

/// A merge patch after which only `owners` remain.
pub(crate) fn with_owners(live: &Value, owners: &[Value]) -> Value {
    json!({"metadata": {
        "uid": live["metadata"]["uid"],
        "resourceVersion": live["metadata"]["resourceVersion"],
        "ownerReferences": owners,
    }})
}

/// A merge patch after which no owner waits for this object.
pub(crate) fn without_blocking(live: &Value) -> Option<Value> {
    let mut owners = live["metadata"]["ownerReferences"].as_array()?.clone();
    let mut blocking = owners.iter_mut().filter(|o| o["blockOwnerDeletion"] == true).peekable();
    blocking.peek()?;
    blocking.for_each(|owner| owner["blockOwnerDeletion"] = false.into());
    Some(with_owners(live, &owners))
}

/// The references of `live` other than to `owner`, if there is one to it.
pub(crate) fn owners_without(live: &Value, owner: &str) -> Option<Vec<Value>> {
    let all = live["metadata"]["ownerReferences"].as_array()?;
    let rest: Vec<Value> = all.iter().filter(|o| o["uid"] != owner).cloned().collect();
    (rest.len() < all.len()).then_some(rest)
}
