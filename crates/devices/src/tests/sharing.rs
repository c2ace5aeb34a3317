//! Devices that several may have: administrators, shares of capacity, partitions that use counters.

use serde_json::{Value, json};

use super::{Bed, claim, shown, slice, want};

#[test]
fn administrators_take_nothing_away() {
    let mut bed = Bed::new(&[slice("s", json!([{"name": "a"}]), json!({}))]);
    let plain = claim(json!({"requests": [want("r", json!({}))]}));
    let admin = claim(json!({"requests": [want("r", json!({"adminAccess": true}))]}));
    let seen = bed.allocate(std::slice::from_ref(&admin)).unwrap().unwrap();
    let result = &seen[0].devices.as_ref().unwrap().results.as_ref().unwrap()[0];
    assert_eq!(result.admin_access, Some(true));
    bed.take(&seen);
    let taken = bed.allocate(std::slice::from_ref(&plain)).unwrap().unwrap();
    bed.take(&taken);
    assert_eq!(bed.answer(&[plain]), "nothing");
    assert_eq!(bed.answer(&[admin]), "r=a");
    // Twice in one claim it is not had.
    let twice = want("r", json!({"adminAccess": true, "count": 2}));
    assert_eq!(bed.answer(&[claim(json!({"requests": [twice]}))]), "nothing");
}

fn shared(policy: Value) -> Bed {
    Bed::new(&[slice(
        "s",
        json!([{"name": "nic", "allowMultipleAllocations": true,
            "capacity": {"bandwidth": {"value": "10Gi", "requestPolicy": policy}}}]),
        json!({}),
    )])
}

fn asks(amount: &str) -> Value {
    claim(json!({"requests": [want("r", json!({"capacity":
        {"requests": {"bandwidth": amount}}}))]}))
}

#[test]
fn a_device_is_shared_until_it_is_used_up() {
    let mut bed = shared(Value::Null);
    let result = bed.allocate(&[asks("6Gi")]).unwrap().unwrap();
    let first = &result[0].devices.as_ref().unwrap().results.as_ref().unwrap()[0];
    assert_eq!(first.share_id.as_deref(), Some("share-1"));
    assert_eq!(first.consumed_capacity.as_ref().unwrap()["bandwidth"].0, "6Gi");
    bed.take(&result);
    assert_eq!(bed.answer(&[asks("5Gi")]), "nothing");
    // Two claims of one pod share what is left.
    assert_eq!(bed.answer(&[asks("2Gi"), asks("2Gi")]), "r=nic; r=nic");
    assert_eq!(bed.answer(&[asks("2Gi"), asks("3Gi")]), "nothing");
    // Who does not say how much asks for all.
    assert_eq!(bed.answer(&[claim(json!({"requests": [want("r", json!({}))]}))]), "nothing");
    let other = want("r", json!({"capacity": {"requests": {"latency": "1"}}}));
    assert_eq!(bed.answer(&[claim(json!({"requests": [other]}))]), "nothing");
}

#[test]
fn what_is_given_back_can_be_had_again() {
    let mut bed = shared(Value::Null);
    let first = bed.allocate(&[asks("6Gi")]).unwrap().unwrap();
    let second = bed.allocate(&[asks("4Gi")]).unwrap().unwrap();
    bed.take(&first);
    bed.take(&second);
    assert_eq!(bed.answer(&[asks("1Gi")]), "nothing");
    bed.give_back(&second);
    assert_eq!(bed.answer(&[asks("4Gi")]), "r=nic");
    assert_eq!(bed.answer(&[asks("5Gi")]), "nothing");
    bed.give_back(&first);
    assert_eq!(bed.answer(&[asks("10Gi")]), "r=nic");
}

/// What a request for this much takes.
fn taken(policy: Value, amount: Option<&str>) -> Option<String> {
    let asked = match amount {
        Some(amount) => asks(amount),
        None => claim(json!({"requests": [want("r", json!({}))]})),
    };
    let result = shared(policy).allocate(&[asked]).unwrap()?;
    let results = result[0].devices.as_ref()?.results.as_ref()?;
    Some(results[0].consumed_capacity.as_ref()?["bandwidth"].0.clone())
}

#[test]
fn policies_round_requests_up() {
    let range =
        json!({"default": "1Gi", "validRange": {"min": "1Gi", "max": "8Gi", "step": "2Gi"}});
    assert_eq!(taken(range.clone(), None).as_deref(), Some("1Gi"));
    assert_eq!(taken(range.clone(), Some("1Mi")).as_deref(), Some("1Gi"));
    assert_eq!(taken(range.clone(), Some("2Gi")).as_deref(), Some("3Gi"));
    assert_eq!(taken(range, Some("8Gi")), None);
    let values = json!({"default": "1Gi", "validValues": ["1Gi", "4Gi"]});
    assert_eq!(taken(values.clone(), Some("2Gi")).as_deref(), Some("4Gi"));
    assert_eq!(taken(values, Some("5Gi")), None);
    assert_eq!(taken(Value::Null, Some("11Gi")), None);
}

/// A card of 4 units, as a whole and as three partitions.
fn card(allocated: &str) -> Bed {
    let part = |name: &str, units: &str| {
        json!({"name": name, "consumesCounters": [{"counterSet": "card",
            "counters": {"units": {"value": units}}}]})
    };
    let pool = json!({"name": "p", "generation": 1, "resourceSliceCount": 2});
    let devices = json!([part("whole", "4"), part("half", "2"), part("x", "1"), part("y", "1")]);
    let counters = json!({"metadata": {"name": "counters"}, "spec": {"driver": "d", "pool": pool,
        "allNodes": true, "sharedCounters": [{"name": "card",
            "counters": {"units": {"value": "4"}}}]}});
    let mut bed = Bed::new(&[slice("s", devices, json!({"pool": pool})), counters]);
    if !allocated.is_empty() {
        let taken = bed.allocate(&[named(allocated)]).unwrap().unwrap();
        bed.take(&taken);
    }
    bed
}

/// A claim for the whole card, or for two of its partitions: first fit takes the first device for one.
fn named(device: &str) -> Value {
    let count = if device == "whole" { 1 } else { 2 };
    claim(json!({"requests": [want("r", json!({"count": count}))]}))
}

#[test]
fn partitions_share_counters() {
    // Two devices: the whole card leaves nothing for another.
    assert_eq!(card("").answer(&[named("two")]), "r=half r=x");
    let three = claim(json!({"requests": [want("r", json!({"count": 3}))]}));
    assert_eq!(card("").answer(&[three]), "r=half r=x r=y");
    let four = claim(json!({"requests": [want("r", json!({"count": 4}))]}));
    assert_eq!(card("").answer(&[four]), "nothing");
    // What is allocated counts.
    let one = claim(json!({"requests": [want("r", json!({}))]}));
    assert_eq!(card("whole").answer(std::slice::from_ref(&one)), "nothing");
    assert_eq!(card("two").answer(&[one]), "r=y");
}

#[test]
fn a_pool_whose_counters_are_missing_is_invalid() {
    let part = json!([{"name": "a", "consumesCounters": [{"counterSet": "card",
        "counters": {"units": {"value": "1"}}}]}]);
    let bed = Bed::new(&[slice("s", part, json!({}))]);
    let one = claim(json!({"requests": [want("r", json!({}))]}));
    assert_eq!(bed.answer(&[one]), "node: invalid resource pools were encountered");
}

#[test]
fn devices_with_binding_conditions_come_last() {
    let pool = |name: &str| json!({"name": name, "generation": 1, "resourceSliceCount": 1});
    let slow = slice(
        "1",
        json!([{"name": "slow", "bindingConditions": ["ready"],
            "bindingFailureConditions": ["failed"]}]),
        json!({"pool": pool("a")}),
    );
    let fast = slice("2", json!([{"name": "fast"}]), json!({"pool": pool("b")}));
    let bed = Bed::new(&[slow, fast]);
    let two = claim(json!({"requests": [want("r", json!({"count": 2}))]}));
    let results = bed.allocate(&[two]).unwrap().unwrap();
    assert_eq!(shown(&results[0]), "r=fast r=slow");
    let devices = results[0].devices.as_ref().unwrap();
    let slow = &devices.results.as_ref().unwrap()[1];
    assert_eq!(slow.binding_conditions.as_deref(), Some(&["ready".to_owned()][..]));
    assert_eq!(slow.binding_failure_conditions.as_deref(), Some(&["failed".to_owned()][..]));
}
