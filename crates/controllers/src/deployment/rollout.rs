//! How many replicas each ReplicaSet of a Deployment gets: rolling, recreating, scaling.

use std::cmp::Reverse;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::meta::name;

/// The Deployment's `replicas` when the set was last sized.
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
/// `replicas` and surge when the set was last sized.
const MAX: &str = "deployment.kubernetes.io/max-replicas";

/// A Deployment's bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) replicas: i32,
    pub(crate) surge: i32,
    pub(crate) unavailable: i32,
    pub(crate) rolling: bool,
}

impl Bounds {
    pub(crate) fn of(deployment: &Deployment) -> Bounds {
        let spec = deployment.spec.clone().unwrap_or_default();
        let replicas = spec.replicas.unwrap_or(1);
        let strategy = spec.strategy.unwrap_or_default();
        let rolling = strategy.type_.as_deref() != Some("Recreate");
        let limits = strategy.rolling_update.unwrap_or_default();
        let surge = scaled(limits.max_surge.as_ref(), replicas, true);
        let mut unavailable = scaled(limits.max_unavailable.as_ref(), replicas, false);
        if surge == 0 && unavailable == 0 {
            // Both may round to nothing; without one of them no rollout would ever move.
            unavailable = 1;
        }
        match rolling {
            true => Bounds { replicas, surge, unavailable: unavailable.min(replicas), rolling },
            false => Bounds { replicas, surge: 0, unavailable: 0, rolling },
        }
    }

    pub(crate) fn annotations(&self) -> [(&'static str, String); 2] {
        [(DESIRED, self.replicas.to_string()), (MAX, (self.replicas + self.surge).to_string())]
    }
}

/// A number, or percents of `of`; absent is the API's default of 25 %.
fn scaled(limit: Option<&IntOrString>, of: i32, up: bool) -> i32 {
    let default = IntOrString::String("25%".into());
    crate::harness::scaled(limit.unwrap_or(&default), of, up)
}

pub(crate) fn size(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
}

pub(crate) fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|s| s.available_replicas).unwrap_or(0)
}

fn created(set: &ReplicaSet) -> i64 {
    set.metadata.creation_timestamp.as_ref().map_or(i64::MAX, |t| t.0.as_second())
}

fn noted(set: &ReplicaSet, key: &str) -> Option<i32> {
    set.metadata.annotations.as_ref()?.get(key)?.parse().ok()
}

/// A set and the size it shall have.
pub(crate) type Sizes = Vec<(Arc<ReplicaSet>, i32)>;

/// Whether the Deployment was scaled since its sets were sized.
pub(crate) fn was_scaled(bounds: &Bounds, sets: &[Arc<ReplicaSet>]) -> bool {
    let mut active = sets.iter().filter(|s| size(s) > 0);
    active.any(|s| noted(s, DESIRED).is_some_and(|n| n != bounds.replicas))
}

/// What a new set starts with, or may grow to.
pub(crate) fn new_size(bounds: &Bounds, sets: &[Arc<ReplicaSet>], current: i32) -> i32 {
    if !bounds.rolling {
        return bounds.replicas;
    }
    let total: i32 = sets.iter().map(|s| size(s)).sum();
    let room = bounds.replicas + bounds.surge - total;
    if room <= 0 {
        return current;
    }
    current + room.min(bounds.replicas - current)
}

/// The next step of a rolling update; empty when nothing may move yet.
pub(crate) fn rolling(bounds: &Bounds, new: &Arc<ReplicaSet>, old: &[Arc<ReplicaSet>]) -> Sizes {
    let have = size(new);
    let all: Vec<Arc<ReplicaSet>> = old.iter().chain([new]).cloned().collect();
    let want = match have.cmp(&bounds.replicas) {
        std::cmp::Ordering::Less => new_size(bounds, &all, have),
        _ => bounds.replicas,
    };
    if want != have {
        return vec![(new.clone(), want)];
    }
    shrink_old(bounds, new, old)
}

fn shrink_old(bounds: &Bounds, new: &ReplicaSet, old: &[Arc<ReplicaSet>]) -> Sizes {
    let total: i32 = old.iter().map(|s| size(s)).sum::<i32>() + size(new);
    let least = bounds.replicas - bounds.unavailable;
    let mut allowed = total - least - (size(new) - available(new));
    if allowed <= 0 {
        return Vec::new();
    }
    let mut sizes: Vec<(Arc<ReplicaSet>, i32)> =
        old.iter().filter(|s| size(s) > 0).map(|s| (s.clone(), size(s))).collect();
    sizes.sort_by_key(|(set, _)| created(set));
    // Pods that do not work cost nothing to end.
    for (set, size) in &mut sizes {
        let broken = (*size - available(set)).clamp(0, allowed);
        *size -= broken;
        allowed -= broken;
    }
    let working: i32 = old.iter().map(|s| available(s)).sum::<i32>() + available(new);
    let mut spare = (working - least).max(0);
    for (_, size) in &mut sizes {
        let step = spare.min(*size);
        *size -= step;
        spare -= step;
    }
    sizes.into_iter().filter(|(set, wanted)| size(set) != *wanted).collect()
}

/// Sizes after `replicas` changed, or while paused: in proportion, so that a rollout neither
/// hurries nor falls back.
pub(crate) fn scaling(
    bounds: &Bounds,
    new: Option<&Arc<ReplicaSet>>,
    old: &[Arc<ReplicaSet>],
) -> Sizes {
    let all = || old.iter().chain(new).cloned();
    let mut active: Vec<Arc<ReplicaSet>> = all().filter(|s| size(s) > 0).collect();
    if active.len() <= 1 {
        let only =
            active.pop().or_else(|| new.cloned()).or_else(|| all().max_by_key(|s| created(s)));
        return only.map(|s| (s, bounds.replicas)).into_iter().collect();
    }
    let saturated = new.is_some_and(|n| {
        size(n) == bounds.replicas
            && noted(n, DESIRED) == Some(bounds.replicas)
            && available(n) == bounds.replicas
    });
    if saturated {
        return old.iter().filter(|s| size(s) > 0).map(|s| (s.clone(), 0)).collect();
    }
    if !bounds.rolling {
        return Vec::new();
    }
    in_proportion(bounds, active)
}

fn in_proportion(bounds: &Bounds, mut active: Vec<Arc<ReplicaSet>>) -> Sizes {
    let allowed = if bounds.replicas > 0 { bounds.replicas + bounds.surge } else { 0 };
    let to_add = allowed - active.iter().map(|s| size(s)).sum::<i32>();
    match to_add >= 0 {
        true => active.sort_by_key(|s| (Reverse(size(s)), Reverse(created(s)))),
        false => active.sort_by_key(|s| (Reverse(size(s)), created(s))),
    }
    let mut added = 0;
    let mut sizes: Sizes = Vec::new();
    for set in active {
        let share = share(bounds, &set, to_add, added);
        added += share;
        let size = size(&set) + share;
        sizes.push((set, size));
    }
    // Rounding leaves some over; the largest set takes it.
    if let Some((_, size)) = sizes.first_mut() {
        *size = (*size + to_add - added).max(0);
    }
    sizes
}

fn share(bounds: &Bounds, set: &ReplicaSet, to_add: i32, added: i32) -> i32 {
    let size = size(set);
    if size == 0 || to_add == added {
        return 0;
    }
    let wanted = if bounds.replicas == 0 {
        -size
    } else {
        let before = noted(set, MAX).filter(|n| *n > 0).unwrap_or(bounds.replicas);
        let now = f64::from(bounds.replicas + bounds.surge);
        (f64::from(size) * now / f64::from(before)).round() as i32 - size
    };
    let left = to_add - added;
    if to_add > 0 { wanted.min(left) } else { wanted.max(left) }
}

/// Old sets beyond the history that is kept.
pub(crate) fn surplus(
    limit: Option<i32>,
    old: &[Arc<ReplicaSet>],
    revision: impl Fn(&ReplicaSet) -> i64,
) -> Vec<String> {
    // The API defaults it to 10; an object without it keeps all.
    let Some(limit) = limit.and_then(|l| usize::try_from(l).ok()) else { return Vec::new() };
    let mut alive: Vec<&Arc<ReplicaSet>> =
        old.iter().filter(|s| s.metadata.deletion_timestamp.is_none()).collect();
    alive.sort_by_key(|s| (revision(s), created(s)));
    let surplus = alive.len().saturating_sub(limit);
    let idle = |s: &&&Arc<ReplicaSet>| {
        size(s) == 0
            && s.status.as_ref().is_none_or(|status| status.replicas == 0)
            && s.metadata.generation <= s.status.as_ref().and_then(|st| st.observed_generation)
    };
    let first = alive.iter().take(surplus);
    first.filter(idle).map(|s| name(&s.metadata).to_owned()).collect()
}
