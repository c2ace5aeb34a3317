//! Limited resources: what may be used only where a quota covers it (`ResourceQuotaConfiguration`).

use jiff::Timestamp;
use serde_json::{Value, json};
use validation::items;

use super::{Request, limited};

/// One of `limitedResources`.
#[derive(Debug, Clone, PartialEq)]
pub struct LimitedResource {
    group: String,
    resource: String,
    /// Parts of the names that quotas use.
    contains: Vec<String>,
    /// Requirements of `matchScopes`.
    scopes: Vec<Value>,
}

impl LimitedResource {
    pub fn read(entry: &Value) -> LimitedResource {
        let text = |key: &str| entry[key].as_str().unwrap_or("").to_owned();
        let contains = items(entry, "matchContains").filter_map(Value::as_str);
        LimitedResource {
            group: text("apiGroup"),
            resource: text("resource"),
            contains: contains.map(str::to_owned).collect(),
            scopes: items(entry, "matchScopes").cloned().collect(),
        }
    }
}

/// Refuses what is limited and covered by none of the namespace's quotas.
pub fn check_covered(
    resources: &[LimitedResource],
    quotas: &[Value],
    request: &Request<'_>,
    now: Timestamp,
) -> Result<(), String> {
    let own = |entry: &&LimitedResource| {
        entry.group == request.group && entry.resource == request.resource
    };
    let entries: Vec<&LimitedResource> = resources.iter().filter(own).collect();
    if entries.is_empty() {
        return Ok(());
    }
    let measured = request.measure(request.new);
    let matching: Vec<&Value> =
        quotas.iter().filter(|quota| measured.matches(&quota["spec"])).collect();
    let covered: Vec<String> = matching.iter().flat_map(|quota| limited(quota, request)).collect();
    let usage = measured.usage(now);
    let used = usage.iter().filter(|(_, amount)| !amount.is_zero() && !amount.is_negative());
    let is_limited =
        |name: &str| entries.iter().flat_map(|e| &e.contains).any(|part| name.contains(&**part));
    let missing: Vec<&str> = used
        .map(|(name, _)| name.as_str())
        .filter(|name| is_limited(name) && !covered.iter().any(|own| own == name))
        .collect();
    if !missing.is_empty() {
        return Err(format!("insufficient quota to consume: {}", missing.join(",")));
    }
    let applies =
        |scope: &&Value| measured.matches(&json!({"scopeSelector": {"matchExpressions": [scope]}}));
    let scopes = entries.iter().flat_map(|entry| &entry.scopes).filter(applies);
    let uncovered: Vec<String> =
        scopes.filter(|scope| !matching.iter().any(|q| has_scope(q, scope))).map(shown).collect();
    match uncovered.is_empty() {
        true => Ok(()),
        false => {
            Err(format!("insufficient quota to match these scopes: [{}]", uncovered.join(" ")))
        }
    }
}

/// Whether a quota asks for the same of an object.
fn has_scope(quota: &Value, scope: &Value) -> bool {
    let spec = &quota["spec"];
    let plain = |name: &Value| scope["operator"] == "Exists" && *name == scope["scopeName"];
    let values = |scope: &Value| {
        let mut values: Vec<String> = items(scope, "values").map(Value::to_string).collect();
        values.sort();
        values
    };
    let same = |own: &Value| {
        own["scopeName"] == scope["scopeName"]
            && own["operator"] == scope["operator"]
            && values(own) == values(scope)
    };
    items(spec, "scopes").any(plain) || items(&spec["scopeSelector"], "matchExpressions").any(same)
}

/// As Go prints a `ScopedResourceSelectorRequirement`.
fn shown(scope: &Value) -> String {
    let text = |key: &str| scope[key].as_str().unwrap_or("");
    let values: Vec<&str> = items(scope, "values").filter_map(Value::as_str).collect();
    format!("{{{} {} [{}]}}", text("scopeName"), text("operator"), values.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(entry: &Value, quotas: &[Value], pod: &Value) -> Result<(), String> {
        let request = Request { group: "", resource: "pods", subresource: "", old: None, new: pod };
        check_covered(&[LimitedResource::read(entry)], quotas, &request, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn a_limited_resource_needs_a_quota() {
        let entry = json!({"resource": "pods", "matchContains": ["requests.cpu"]});
        let pod = json!({"spec": {"containers": [{"resources": {"requests": {"cpu": "1"}}}]}});
        let why = "insufficient quota to consume: requests.cpu";
        assert_eq!(check(&entry, &[], &pod), Err(why.into()));
        let other = json!({"spec": {}, "status": {"hard": {"pods": "1"}}});
        assert_eq!(check(&entry, &[other], &pod), Err(why.into()));
        let quota = json!({"spec": {}, "status": {"hard": {"requests.cpu": "1"}}});
        assert_eq!(check(&entry, &[quota], &pod), Ok(()));
        assert_eq!(check(&entry, &[], &json!({"spec": {}})), Ok(()), "nothing is used");
        let elsewhere = json!({"resource": "services", "matchContains": ["requests.cpu"]});
        assert_eq!(check(&elsewhere, &[], &pod), Ok(()));
    }

    #[test]
    fn a_limited_scope_needs_a_quota_with_it() {
        let scope = json!({"scopeName": "PriorityClass", "operator": "In", "values": ["high"]});
        let entry = json!({"resource": "pods", "matchScopes": [scope]});
        let pod = |class: &str| json!({"spec": {"priorityClassName": class}});
        assert_eq!(
            check(&entry, &[], &pod("high")),
            Err("insufficient quota to match these scopes: [{PriorityClass In [high]}]".into())
        );
        assert_eq!(check(&entry, &[], &pod("low")), Ok(()));
        let quota = json!({"spec": {"scopeSelector": {"matchExpressions": [scope]}}});
        assert_eq!(check(&entry, &[quota], &pod("high")), Ok(()));
    }
}
