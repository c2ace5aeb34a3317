//! Conditions and finalizers of an ending namespace.

use k8s_openapi::api::core::v1::Namespace;
use serde_json::json;

use super::plan::{Left, finalized, with_conditions};
use crate::meta::now;

#[test]
fn what_is_left_is_said_once() {
    let namespace = Namespace::default();
    let left = Left {
        objects: [("pods.".to_owned(), 2)].into(),
        finalizers: [("x/y".to_owned(), 1)].into(),
        ..Left::default()
    };
    let new = with_conditions(&namespace, &left, &now()).unwrap();
    let value = serde_json::to_value(&new).unwrap();
    assert_eq!(
        value["status"]["conditions"][3]["message"],
        "Some resources are remaining: pods. has 2 resource instances"
    );
    assert_eq!(
        value["status"]["conditions"][4]["message"],
        "Some content in the namespace has finalizers remaining: x/y in 1 resource instances"
    );
    assert_eq!(with_conditions(&new, &left, &now()), None);
}

#[test]
fn a_group_that_does_not_answer_is_named() {
    let failed = [("x.example/v1".to_owned(), "no answer".to_owned())].into();
    let left = Left { undiscovered: failed, ..Left::default() };
    assert!(!left.is_empty());
    let new = with_conditions(&Namespace::default(), &left, &now()).unwrap();
    let condition = &new.status.unwrap().conditions.unwrap()[0];
    assert_eq!(
        (condition.status.as_str(), condition.reason.as_deref()),
        ("True", Some("DiscoveryFailed"))
    );
    assert_eq!(
        condition.message.as_deref(),
        Some(
            "Discovery failed for some groups, 1 failing: unable to retrieve the complete list \
              of server APIs: x.example/v1: no answer"
        )
    );
}

#[test]
fn only_our_finalizer_is_taken_off() {
    let namespace: Namespace = serde_json::from_value(json!({"metadata": {},
        "spec": {"finalizers": ["kubernetes", "other"]}}))
    .unwrap();
    let done = finalized(&namespace).unwrap();
    assert_eq!(done.spec.as_ref().unwrap().finalizers.as_deref(), Some(&["other".to_owned()][..]));
    assert_eq!(finalized(&done), None);
}
