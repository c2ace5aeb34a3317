//! IP families of a Service: which it has, and which the cluster cannot give (upstream
//! `initIPFamilyFields`).

use std::net::IpAddr;

use api::status::Cause;
use serde_json::{Value, json};
use validation::{items, text};

use crate::meta::invalid;

const POLICY: &str = "ipFamilyPolicy";
const FAMILIES: &str = "ipFamilies";

fn name(is_v6: bool) -> &'static str {
    if is_v6 { "IPv6" } else { "IPv4" }
}

/// Completes policy and families. `configured` says of each of the cluster's ranges whether it is
/// IPv6, the default family first.
pub(super) fn families(configured: &[bool], spec: &mut Value, old: Option<&Value>) -> Vec<Cause> {
    let headless = spec["clusterIP"] == "None";
    let selects = spec["selector"].as_object().is_some_and(|selector| !selector.is_empty());
    let is_outside = headless && !selects;
    if text(&spec[POLICY]).is_empty() {
        spec[POLICY] = if is_outside { "RequireDualStack" } else { "SingleStack" }.into();
    }
    if let Some(old) = old.filter(|_| spec[POLICY] == "SingleStack") {
        release_second(spec, old);
    }
    let faults = follow_addresses(configured, spec);
    if !faults.is_empty() {
        return faults;
    }
    // Where nothing is allocated, the cluster need not have the families.
    let faults = if is_outside { Vec::new() } else { refused(configured, spec) };
    if !faults.is_empty() {
        return faults;
    }
    let default = configured.first().is_some_and(|v6| *v6);
    let mut all: Vec<Value> = items(spec, FAMILIES).cloned().collect();
    if all.is_empty() {
        all.push(name(default).into());
    }
    let may_have_two = is_outside || configured.len() == 2;
    if all.len() == 1 && spec[POLICY] != "SingleStack" && may_have_two {
        all.push(name(all[0] == name(false)).into());
    }
    spec[FAMILIES] = all.into();
    Vec::new()
}

/// A change to one family gives the second one back, unless the request says which to keep.
fn release_second(spec: &mut Value, old: &Value) {
    for list in ["clusterIPs", FAMILIES] {
        let same = spec[list] == old[list];
        if let Some(all) = spec[list].as_array_mut().filter(|_| same) {
            all.truncate(1);
        }
    }
}

/// Addresses that were asked for say their families.
fn follow_addresses(configured: &[bool], spec: &mut Value) -> Vec<Cause> {
    let mut faults = Vec::new();
    let mut all: Vec<Value> = items(spec, FAMILIES).cloned().collect();
    let mut asked: Vec<&str> = items(spec, "clusterIPs").map(text).collect();
    if asked.is_empty() {
        asked.extend(Some(text(&spec["clusterIP"])).filter(|ip| !ip.is_empty()));
    }
    for (at, ip) in asked.iter().enumerate().skip(all.len()) {
        // Validation says what is wrong with one that is none.
        let Ok(ip) = ip.parse::<IpAddr>() else { break };
        if configured.contains(&ip.is_ipv6()) {
            all.push(name(ip.is_ipv6()).into());
        } else {
            let field = format!("spec.clusterIPs[{at}]");
            let why = format!("{} is not configured on this cluster", name(ip.is_ipv6()));
            faults.push(invalid(field, &json!(asked), &why));
        }
    }
    if !all.is_empty() {
        spec[FAMILIES] = all.into();
    }
    faults
}

/// Families that the cluster does not have. Unknown ones are validation's to refuse.
fn refused(configured: &[bool], spec: &Value) -> Vec<Cause> {
    let mut faults = Vec::new();
    if spec[POLICY] == "RequireDualStack" && configured.len() < 2 {
        let why = "this cluster is not configured for dual-stack services";
        faults.push(invalid("spec.ipFamilyPolicy", &spec[POLICY], why));
    }
    for (at, family) in items(spec, FAMILIES).enumerate() {
        let known = [false, true].into_iter().find(|v6| name(*v6) == text(family));
        if known.is_some_and(|v6| !configured.contains(&v6)) {
            let field = format!("spec.ipFamilies[{at}]");
            faults.push(invalid(field, family, "not configured on this cluster"));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(configured: &[bool], mut spec: Value) -> Result<Value, Vec<String>> {
        let faults = families(configured, &mut spec, None);
        let said = |cause: &Cause| format!("{}: {}", cause.field, cause.message);
        if faults.is_empty() { Ok(spec) } else { Err(faults.iter().map(said).collect()) }
    }

    #[test]
    fn a_cluster_of_one_family_refuses_two() {
        let spec = json!({"ipFamilyPolicy": "RequireDualStack"});
        assert_eq!(completed(&[false], spec), Err(vec!["spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services".into()]));
        let spec = json!({"ipFamilies": ["IPv6"]});
        assert_eq!(
            completed(&[false], spec),
            Err(vec![
                "spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster"
                    .into()
            ])
        );
        let spec = json!({"clusterIPs": ["fd00::1"]});
        assert_eq!(completed(&[false], spec), Err(vec!["spec.clusterIPs[0]: Invalid value: [\"fd00::1\"]: IPv6 is not configured on this cluster".into()]));
        let spec = completed(&[false], json!({"ipFamilyPolicy": "PreferDualStack"}));
        assert_eq!(spec, Ok(json!({"ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv4"]})));
    }

    #[test]
    fn families_follow_policy_and_addresses() {
        let both = [false, true];
        let spec =
            completed(&both, json!({"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6"]}));
        assert_eq!(spec.expect("fits")["ipFamilies"], json!(["IPv6", "IPv4"]));
        let spec = completed(&both, json!({"clusterIP": "fd00::1"})).expect("fits");
        assert_eq!(
            (&spec["ipFamilies"], &spec["ipFamilyPolicy"]),
            (&json!(["IPv6"]), &json!("SingleStack"))
        );
        assert_eq!(completed(&both, json!({})).expect("fits")["ipFamilies"], json!(["IPv4"]));
    }

    #[test]
    fn headless_services_without_selectors_may_have_any_family() {
        let spec = completed(&[false], json!({"clusterIP": "None"})).expect("fits");
        assert_eq!(
            (&spec["ipFamilyPolicy"], &spec["ipFamilies"]),
            (&json!("RequireDualStack"), &json!(["IPv4", "IPv6"]))
        );
        let spec = json!({"clusterIP": "None", "selector": {"a": "b"}, "ipFamilyPolicy": "RequireDualStack"});
        assert!(completed(&[false], spec).is_err());
    }

    #[test]
    fn one_family_gives_the_second_back() {
        let old = json!({"clusterIPs": ["1.1.1.1", "fd00::1"], "ipFamilies": ["IPv4", "IPv6"]});
        let mut spec = old.clone();
        spec["ipFamilyPolicy"] = "SingleStack".into();
        assert!(families(&[false, true], &mut spec, Some(&old)).is_empty());
        assert_eq!(
            (&spec["clusterIPs"], &spec["ipFamilies"]),
            (&json!(["1.1.1.1"]), &json!(["IPv4"]))
        );
    }
}
