//! Nobody grants what they do not hold: whether rules cover others, and the refusal when not.
//!
//! Rule: `rbac/validation.Covers` and `ConfirmNoEscalation`. Pure.

use std::collections::BTreeSet;

use super::rbac::{Resolved, Rule, url_covers};
use crate::user::User;

/// Most single permissions a role may hold to be compared with another's rights. Far above any real
/// role; a rule of thousands of groups, resources and verbs would multiply into billions.
const SINGLES_MAX: usize = 20_000;

/// `Err` with the sentence after "is forbidden: " when `asked` holds more than the user does.
pub fn confirm(user: &User, held: &Resolved, asked: &[Rule]) -> Result<(), String> {
    let count = asked.iter().map(count).fold(0, usize::saturating_add);
    if count > SINGLES_MAX {
        return Err(format!(
            "the role grants {count} single permissions, more than the {SINGLES_MAX} that can be compared with those currently held"
        ));
    }
    let singles = asked.iter().flat_map(singles);
    let missing: Vec<Rule> =
        singles.filter(|single| !held.rules.iter().any(|own| covers(own, single))).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let told: BTreeSet<String> = compact(missing).iter().map(describe).collect();
    let told: Vec<String> = told.into_iter().collect();
    let mut text = format!(
        "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        user.name,
        quoted(&user.groups),
        told.join("\n")
    );
    if let Some(errors) = aggregate(&held.errors) {
        text += &format!("; resolution errors: [{errors}]");
    }
    Err(text)
}

/// Several errors as one; the same one counts once.
pub(super) fn aggregate(errors: &[String]) -> Option<String> {
    let mut seen: Vec<&str> = Vec::new();
    for error in errors {
        if !seen.contains(&error.as_str()) {
            seen.push(error);
        }
    }
    match seen.as_slice() {
        [] => None,
        [one] => Some((*one).to_owned()),
        more => Some(format!("[{}]", more.join(", "))),
    }
}

/// How many single permissions a rule holds.
fn count(rule: &Rule) -> usize {
    let names = rule.resource_names.len().max(1);
    let lists = [rule.api_groups.len(), rule.resources.len(), rule.verbs.len(), names];
    let resources = lists.into_iter().fold(1, usize::saturating_mul);
    resources.saturating_add(rule.non_resource_urls.len().saturating_mul(rule.verbs.len()))
}

/// A rule's single permissions: one verb on one resource (by one name), or on one path.
fn singles(rule: &Rule) -> Vec<Rule> {
    let one = |text: &String| vec![text.clone()];
    let mut all = Vec::new();
    for group in &rule.api_groups {
        for resource in &rule.resources {
            for verb in &rule.verbs {
                let any = Rule {
                    api_groups: one(group),
                    resources: one(resource),
                    verbs: one(verb),
                    ..Rule::default()
                };
                let named = rule.resource_names.iter();
                let named = named.map(|name| Rule { resource_names: one(name), ..any.clone() });
                match rule.resource_names.is_empty() {
                    true => all.push(any),
                    false => all.extend(named),
                }
            }
        }
    }
    for url in &rule.non_resource_urls {
        let by_verb = rule.verbs.iter().map(|verb| Rule {
            non_resource_urls: one(url),
            verbs: one(verb),
            ..Rule::default()
        });
        all.extend(by_verb);
    }
    all
}

/// Whether a rule holds all of a single permission.
fn covers(own: &Rule, single: &Rule) -> bool {
    let all = |own: &[String], asked: &[String]| asked.iter().all(|a| own.contains(a));
    let any = |own: &[String]| own.iter().any(|o| o == "*");
    (any(&own.verbs) || all(&own.verbs, &single.verbs))
        && (any(&own.api_groups) || all(&own.api_groups, &single.api_groups))
        && (any(&own.resources)
            || single.resources.iter().all(|asked| resource_covers(&own.resources, asked)))
        && names_cover(&own.resource_names, &single.resource_names)
        && single
            .non_resource_urls
            .iter()
            .all(|asked| own.non_resource_urls.iter().any(|url| url_covers(url, asked)))
}

fn resource_covers(own: &[String], asked: &str) -> bool {
    own.iter().any(|o| {
        let subresource = asked.split_once('/').map(|(_, sub)| sub);
        o == asked || subresource.is_some_and(|sub| o.strip_prefix("*/") == Some(sub))
    })
}

fn names_cover(own: &[String], asked: &[String]) -> bool {
    own.is_empty() || !asked.is_empty() && asked.iter().all(|name| own.contains(name))
}

/// Permissions on the same thing as one rule with all verbs.
fn compact(singles: Vec<Rule>) -> Vec<Rule> {
    let mut found: Vec<Rule> = Vec::new();
    let mut places = std::collections::HashMap::new();
    for single in singles {
        let place =
            (single.api_groups.clone(), single.resources.clone(), single.resource_names.clone());
        let is_path = !single.non_resource_urls.is_empty();
        match places.get(&place).filter(|_| !is_path) {
            Some(at) => {
                let rule: &mut Rule = &mut found[*at];
                rule.verbs.extend(single.verbs);
            }
            None => {
                if !is_path {
                    places.insert(place, found.len());
                }
                found.push(single);
            }
        }
    }
    found
}

/// Go's `%q` of a list.
pub fn quoted(list: &[String]) -> String {
    let all: Vec<String> = list.iter().map(|text| format!("{text:?}")).collect();
    format!("[{}]", all.join(" "))
}

/// A rule as clients are told it.
fn describe(rule: &Rule) -> String {
    let parts = [
        ("APIGroups", &rule.api_groups),
        ("Resources", &rule.resources),
        ("NonResourceURLs", &rule.non_resource_urls),
        ("ResourceNames", &rule.resource_names),
        ("Verbs", &rule.verbs),
    ];
    let set = parts.iter().filter(|(_, list)| !list.is_empty());
    let shown: Vec<String> = set.map(|(name, list)| format!("{name}:{}", quoted(list))).collect();
    format!("{{{}}}", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(list: &[&str]) -> Vec<String> {
        list.iter().map(|s| (*s).to_owned()).collect()
    }

    fn rule(verbs: &[&str], groups: &[&str], resources: &[&str], names: &[&str]) -> Rule {
        Rule {
            verbs: own(verbs),
            api_groups: own(groups),
            resources: own(resources),
            resource_names: own(names),
            non_resource_urls: vec![],
        }
    }

    fn paths(verbs: &[&str], urls: &[&str]) -> Rule {
        Rule { verbs: own(verbs), non_resource_urls: own(urls), ..Rule::default() }
    }

    fn allowed(held: Vec<Rule>, asked: &Rule) -> bool {
        let user = User::new("jane", &["people"]);
        let held = Resolved { rules: held, errors: vec![] };
        confirm(&user, &held, std::slice::from_ref(asked)).is_ok()
    }

    #[test]
    fn rules_cover_by_each_part() {
        let pods = rule(&["get"], &[""], &["pods"], &[]);
        assert!(allowed(vec![pods.clone()], &pods));
        assert!(!allowed(vec![], &pods));
        assert!(allowed(vec![rule(&["*"], &["*"], &["*"], &[])], &pods));
        assert!(!allowed(vec![pods.clone()], &rule(&["get", "list"], &[""], &["pods"], &[])));
        // Two rules together hold all.
        let list = rule(&["list"], &[""], &["pods"], &[]);
        assert!(allowed(vec![pods.clone(), list], &rule(&["get", "list"], &[""], &["pods"], &[])));
        assert!(!allowed(vec![pods.clone()], &rule(&["get"], &["apps"], &["pods"], &[])));
        assert!(!allowed(vec![pods.clone()], &rule(&["*"], &[""], &["pods"], &[])));
        assert!(!allowed(vec![pods], &rule(&["get"], &[""], &["pods/log"], &[])));
    }

    #[test]
    fn names_and_subresources_narrow() {
        let named = rule(&["get"], &[""], &["pods"], &["a"]);
        assert!(!allowed(vec![named.clone()], &rule(&["get"], &[""], &["pods"], &[])));
        assert!(!allowed(vec![named.clone()], &rule(&["get"], &[""], &["pods"], &["a", "b"])));
        assert!(allowed(vec![rule(&["get"], &[""], &["pods"], &[])], &named));
        let scales = rule(&["get"], &["*"], &["*/scale"], &[]);
        assert!(allowed(
            vec![scales.clone()],
            &rule(&["get"], &["apps"], &["deployments/scale"], &[])
        ));
        assert!(!allowed(vec![scales], &rule(&["get"], &["apps"], &["deployments"], &[])));
    }

    #[test]
    fn paths_cover_by_prefix() {
        let held = vec![paths(&["get"], &["/healthz/*"])];
        assert!(allowed(held.clone(), &paths(&["get"], &["/healthz/etcd"])));
        assert!(allowed(held.clone(), &paths(&["get"], &["/healthz/*"])));
        assert!(!allowed(held.clone(), &paths(&["get"], &["/healthz"])));
        assert!(!allowed(held, &paths(&["get"], &["*"])));
        assert!(!allowed(vec![rule(&["*"], &["*"], &["*"], &[])], &paths(&["get"], &["/x"])));
    }

    #[test]
    fn the_refusal_names_everything_that_is_missing() {
        let user = User::new("jane", &["people", "system:authenticated"]);
        let held = Resolved { rules: vec![], errors: vec!["lost".into(), "lost".into()] };
        let asked =
            [rule(&["get", "list"], &[""], &["secrets", "pods"], &[]), paths(&["get"], &["*"])];
        let told = confirm(&user, &held, &asked);
        let wanted = "user \"jane\" (groups=[\"people\" \"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"get\" \"list\"]}\n{APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\" \"list\"]}\n{NonResourceURLs:[\"*\"], Verbs:[\"get\"]}; resolution errors: [lost]";
        assert_eq!(told, Err(wanted.into()));
    }

    #[test]
    fn a_rule_that_multiplies_is_refused_before_it_does() {
        let many: Vec<String> = (0..1000).map(|n| n.to_string()).collect();
        let wide = Rule {
            verbs: many.clone(),
            api_groups: many.clone(),
            resources: many.clone(),
            resource_names: many,
            non_resource_urls: vec![],
        };
        let refused = confirm(&User::new("jane", &[]), &Resolved::default(), &[wide]);
        let told = "the role grants 1000000000000 single permissions, more than the 20000 that can be compared with those currently held";
        assert_eq!(refused, Err(told.into()));
    }
}
