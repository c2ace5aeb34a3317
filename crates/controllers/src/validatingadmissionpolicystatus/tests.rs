//! What is asked, and what is written.

use std::collections::BTreeMap;

use admission::policies::Warning;
use serde_json::json;

use super::{kind_of, root, status};

#[test]
fn documents_are_found_by_group_and_version() {
    let of = |group: &str| (group.to_owned(), "v1".to_owned());
    assert_eq!(root(&of(""), "/openapi/v3"), "/openapi/v3/api/v1");
    assert_eq!(root(&of("apps"), ""), "/apis/apps/v1");
    let list = json!({"resources": [{"name": "deployments/scale", "kind": "Scale"},
        {"name": "deployments", "kind": "Deployment"}]});
    let known = BTreeMap::from([(of("apps"), list)]);
    let resource = |name: &str| ("apps".to_owned(), "v1".to_owned(), name.to_owned());
    let found = kind_of(&known, &resource("deployments")).expect("known");
    assert_eq!(found.to_string(), "apps/v1, Kind=Deployment");
    assert_eq!(kind_of(&known, &resource("pods")), None);
}

#[test]
fn a_status_without_findings_says_that_it_was_checked() {
    let none = status("p", 3, &[]);
    assert_eq!(none["status"], json!({"observedGeneration": 3, "typeChecking": {}}));
    let warning =
        Warning { field_ref: "spec.validations[0].expression".into(), warning: "w".into() };
    let one = status("p", 4, &[warning]);
    assert_eq!(
        one["status"]["typeChecking"]["expressionWarnings"],
        json!([{"fieldRef": "spec.validations[0].expression", "warning": "w"}])
    );
}
