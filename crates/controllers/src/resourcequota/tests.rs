//! When a quota's status follows the count, and when it waits.

use std::collections::BTreeSet;

use admission::quota::{Amounts, amounts, to_json};
use serde_json::{Value, json};

use super::plan::{Known, plan, shrunk};

struct Case {
    told_hard: Value,
    used: Value,
    counted: Value,
    released: Value,
    quiet: bool,
}

/// `used` as written, and whether to look again.
fn of(case: &Case) -> (Option<Value>, bool) {
    let hard = amounts(&json!({"pods": "10", "count/strange": "1"}));
    let plan = plan(&Known {
        hard: &hard,
        told_hard: &amounts(&case.told_hard),
        used: &amounts(&case.used),
        counted: &amounts(&case.counted),
        countable: &BTreeSet::from(["pods".to_owned()]),
        released: &amounts(&case.released),
        quiet: case.quiet,
    });
    (plan.write.map(|used: Amounts| to_json(&used)), plan.again)
}

fn case() -> Case {
    let told_hard = json!({"pods": "10", "count/strange": "1"});
    let (used, counted) = (json!({"pods": "5"}), json!({"pods": "5"}));
    Case { told_hard, used, counted, released: json!({}), quiet: false }
}

#[test]
fn the_first_count_is_written_for_what_can_be_counted() {
    let fresh = Case { told_hard: json!({}), used: json!({}), ..case() };
    assert_eq!(of(&fresh), (Some(json!({"pods": "5"})), false));
    let empty = Case { told_hard: json!({}), used: json!({}), counted: json!({}), ..case() };
    assert_eq!(of(&empty), (Some(json!({"pods": "0"})), false));
    assert_eq!(of(&case()), (None, false));
    let raised = Case { told_hard: json!({"pods": "9"}), ..case() };
    assert_eq!(of(&raised), (Some(json!({"pods": "5"})), false));
}

#[test]
fn charges_under_way_are_not_forgotten() {
    let behind = Case { counted: json!({"pods": "3"}), ..case() };
    assert_eq!(of(&behind), (None, true));
    let one_went = Case { released: json!({"pods": "1"}), counted: json!({"pods": "2"}), ..case() };
    assert_eq!(of(&one_went), (Some(json!({"pods": "4"})), true));
    // The status is not as new as the count; what went must be taken off the new one.
    let stale = Case { released: json!({"pods": "1"}), ..case() };
    assert_eq!(of(&stale), (Some(json!({"pods": "5"})), false));
    let quiet = Case { quiet: true, counted: json!({"pods": "3"}), ..case() };
    assert_eq!(of(&quiet), (Some(json!({"pods": "3"})), false));
}

#[test]
fn what_was_never_charged_is_counted() {
    let more = Case { counted: json!({"pods": "6"}), ..case() };
    assert_eq!(of(&more), (Some(json!({"pods": "6"})), false));
}

#[test]
fn only_what_shrinks_is_given_back() {
    let before = amounts(&json!({"pods": "1", "cpu": "2", "memory": "1Gi"}));
    let after = amounts(&json!({"pods": "1", "cpu": "3", "memory": "1Gi", "secrets": "1"}));
    assert_eq!(to_json(&shrunk(&before, &after)), json!({}));
    assert_eq!(to_json(&shrunk(&after, &before)), json!({"cpu": "1", "secrets": "1"}));
    assert_eq!(to_json(&shrunk(&before, &Amounts::new())), to_json(&before));
}
