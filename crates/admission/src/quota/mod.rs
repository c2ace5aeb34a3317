//! ResourceQuota: what objects cost, which quotas they are charged to, and when that is too much.
//!
//! Admission charges with [`charge`] before an object is stored; the controller counts stored
//! objects with the same [`Measured`] values.

mod limited;
mod measure;
mod scopes;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use api::quantity::Quantity;
use jiff::Timestamp;
use serde_json::{Map, Value};

pub use self::limited::{LimitedResource, check_covered};
pub use self::measure::{Measured, resource_of};

/// Amounts by the names that quotas use.
pub type Amounts = BTreeMap<String, Quantity>;

/// Resources that no quota counts: what is not stored, and events.
const IGNORED: [(&str, &str); 10] = [
    ("", "bindings"),
    ("", "componentstatuses"),
    ("", "events"),
    ("events.k8s.io", "events"),
    ("authentication.k8s.io", "tokenreviews"),
    ("authentication.k8s.io", "selfsubjectreviews"),
    ("authorization.k8s.io", "subjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectaccessreviews"),
    ("authorization.k8s.io", "localsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectrulesreviews"),
];

/// A request, as far as quotas care.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    pub group: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    /// Absent when the object is new.
    pub old: Option<&'a Value>,
    pub new: &'a Value,
}

impl Request<'_> {
    /// Whether the request can change what its object costs.
    pub fn counts(&self) -> bool {
        let Some(old) = self.old else {
            return self.subresource.is_empty() && !IGNORED.contains(&(self.group, self.resource));
        };
        match (self.group, self.resource, self.subresource) {
            ("", "pods", "") => scopes::terminating(old) != scopes::terminating(self.new),
            ("", "pods", "resize")
            | ("", "services" | "persistentvolumeclaims", "")
            | ("resource.k8s.io", "resourceclaims", "") => true,
            ("", "persistentvolumeclaims", "status") => {
                old["status"]["allocatedResources"] != self.new["status"]["allocatedResources"]
                    || scopes::volume_classes(old) != scopes::volume_classes(self.new)
            }
            _ => false,
        }
    }

    fn measure(&self, object: &Value) -> Measured {
        Measured::of(self.group, self.resource, object)
    }
}

/// Reads a list of amounts; what is none is left out.
pub fn amounts(list: &Value) -> Amounts {
    let entries = list.as_object().into_iter().flatten();
    let read = |value: &Value| Quantity::parse(value.as_str()?).ok();
    entries.filter_map(|(name, value)| Some((name.clone(), read(value)?))).collect()
}

pub fn to_json(amounts: &Amounts) -> Value {
    let texts = amounts.iter().map(|(name, amount)| (name.clone(), amount.to_string().into()));
    Value::Object(texts.collect::<Map<_, _>>())
}

/// Equal in amount, whatever the suffixes.
pub fn same(a: &Amounts, b: &Amounts) -> bool {
    a.len() == b.len() && a.iter().all(|(n, x)| b.get(n).is_some_and(|y| (*x - *y).is_zero()))
}

/// Adds up, name by name.
pub fn add(into: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let sum = into.get(name).map_or(*amount, |have| *have + *amount);
        into.insert(name.clone(), sum);
    }
}

/// The names that a quota limits and this resource is counted by.
fn limited(quota: &Value, request: &Request<'_>) -> Vec<String> {
    let hard = quota["status"]["hard"].as_object().into_iter().flatten();
    let here = |name: &&String| {
        resource_of(name).is_some_and(|(g, r)| g == request.group && r == request.resource)
    };
    let mut names: Vec<String> = hard.map(|(name, _)| name).filter(here).cloned().collect();
    names.sort();
    names
}

/// What all of a namespace's quotas have used once the request is done: by quota, in their order,
/// `None` when it costs that quota nothing. Or why it cannot be done.
pub fn charge(
    quotas: &[Value],
    request: &Request<'_>,
    now: Timestamp,
) -> Result<Vec<Option<Amounts>>, String> {
    let new = request.measure(request.new);
    let old = request.old.map(|object| request.measure(object));
    // Every quota that the request concerns must be able to judge it before any does.
    let mut concerned = Vec::new();
    for quota in quotas {
        concerned.push(concerns(quota, request, &new)?);
    }
    let usage = new.usage(now);
    let negative: Vec<&str> =
        usage.iter().filter(|(_, q)| q.is_negative()).map(|(name, _)| name.as_str()).collect();
    if !negative.is_empty() && concerned.contains(&true) {
        return Err(format!("quota usage is negative for resource(s): {}", negative.join(",")));
    }
    let judge = |(quota, concerned): (&Value, &bool)| match concerned {
        false => Ok(None),
        true => charge_one(quota, request, &delta(quota, &usage, old.as_ref(), now)),
    };
    quotas.iter().zip(&concerned).map(judge).collect()
}

fn concerns(quota: &Value, request: &Request<'_>, new: &Measured) -> Result<bool, String> {
    let names = limited(quota, request);
    if names.is_empty() || !new.matches(&quota["spec"]) {
        return Ok(false);
    }
    let name = quota["metadata"]["name"].as_str().unwrap_or("");
    if (request.group, request.resource) == ("", "pods")
        && let Some(missing) = measure::missing(request.new, &names)
    {
        return Err(format!("failed quota: {name}: must specify {missing}"));
    }
    let used = &quota["status"]["used"];
    if names.iter().any(|n| used[n].is_null()) {
        let names = names.join(",");
        return Err(format!("status unknown for quota: {name}, resources: {names}"));
    }
    Ok(true)
}

/// What the request costs more than before; never less than nothing: what becomes free is counted
/// when it is free.
fn delta(quota: &Value, usage: &Amounts, old: Option<&Measured>, now: Timestamp) -> Amounts {
    let before = old.filter(|old| old.matches(&quota["spec"])).map(|old| old.usage(now));
    let before = before.unwrap_or_default();
    let more = usage.iter().map(|(name, amount)| {
        (name.clone(), before.get(name).map_or(*amount, |before| *amount - *before))
    });
    more.filter(|(_, more)| !more.is_zero() && !more.is_negative()).collect()
}

fn charge_one(
    quota: &Value,
    request: &Request<'_>,
    delta: &Amounts,
) -> Result<Option<Amounts>, String> {
    let hard = amounts(&quota["status"]["hard"]);
    let mut used = amounts(&quota["status"]["used"]);
    let requested: Amounts = delta
        .iter()
        .filter(|(name, _)| hard.contains_key(*name))
        .map(|(name, amount)| (name.clone(), *amount))
        .collect();
    if requested.is_empty() {
        return Ok(None);
    }
    let before = used.clone();
    add(&mut used, &requested);
    let over = |name: &&String| used.get(*name) > hard.get(*name);
    let exceeded: Vec<&String> = requested.keys().filter(over).collect();
    if !exceeded.is_empty() && request.subresource != "status" {
        let show = |list: &Amounts| {
            let parts = exceeded.iter().filter_map(|n| Some(format!("{n}={}", list.get(*n)?)));
            parts.collect::<Vec<_>>().join(",")
        };
        let name = quota["metadata"]["name"].as_str().unwrap_or("");
        return Err(format!(
            "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
            show(&requested),
            show(&before),
            show(&hard)
        ));
    }
    Ok(Some(used))
}
