//! The quality of service of a pod, which follows from its requests and limits.

use serde_json::Value;

use crate::shared::quantity::parse;

/// Guaranteed, Burstable or BestEffort.
pub fn class(spec: &Value) -> &'static str {
    let own = &spec["resources"];
    let as_whole =
        ["requests", "limits"].iter().any(|w| own[*w].as_object().is_some_and(|m| !m.is_empty()));
    if as_whole {
        return of_all(std::iter::once(own));
    }
    let lists = ["containers", "initContainers"].into_iter();
    of_all(lists.flat_map(|k| spec[k].as_array().into_iter().flatten()).map(|c| &c["resources"]))
}

fn of_all<'a>(all: impl Iterator<Item = &'a Value>) -> &'static str {
    let (mut any, mut guaranteed) = (false, true);
    let mut sums = [[api::quantity::Quantity::ZERO; 2]; 2];
    for resources in all {
        for (at, name) in ["cpu", "memory"].into_iter().enumerate() {
            let amount = |what: &str| parse(&resources[what][name]).filter(|q| !q.is_zero());
            let (request, limit) = (amount("requests"), amount("limits"));
            any |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some();
            for (which, found) in [request, limit].into_iter().enumerate() {
                sums[at][which] = sums[at][which] + found.unwrap_or(api::quantity::Quantity::ZERO);
            }
        }
    }
    let equal = |[request, limit]: [api::quantity::Quantity; 2]| {
        request.partial_cmp(&limit) == Some(std::cmp::Ordering::Equal)
    };
    match (any, guaranteed && sums.into_iter().all(equal)) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}
