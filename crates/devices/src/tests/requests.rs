//! Requests: classes, selectors, counts, alternatives, constraints.

use serde_json::{Value, json};

use super::{Bed, cel, claim, shown, slice, want};
use crate::{Environment, Fault};

fn devices(names: &[&str]) -> Value {
    names.iter().map(|name| json!({"name": name})).collect()
}

fn gpus() -> Value {
    json!([
        {"name": "big", "attributes": {"size": {"int": 8}, "numa": {"int": 0},
            "driver.example.com/model": {"string": "x"}, "fw": {"version": "1.10.0"}},
            "capacity": {"memory": {"value": "80Gi"}}},
        {"name": "small", "attributes": {"size": {"int": 1}, "numa": {"int": 1},
            "fw": {"version": "1.9.0"}}, "capacity": {"memory": {"value": "8Gi"}}},
        {"name": "tiny", "attributes": {"size": {"int": 1}, "numa": {"int": 1},
            "fw": {"version": "1.9.0"}}, "capacity": {"memory": {"value": "4Gi"}}}])
}

#[test]
fn the_first_free_device_is_taken() {
    let mut bed = Bed::new(&[slice("s", devices(&["a", "b"]), json!({}))]);
    let one = claim(json!({"requests": [want("r", json!({}))]}));
    let first = bed.allocate(std::slice::from_ref(&one)).unwrap().unwrap();
    assert_eq!(shown(&first[0]), "r=a");
    bed.take(&first);
    let second = bed.allocate(std::slice::from_ref(&one)).unwrap().unwrap();
    assert_eq!(shown(&second[0]), "r=b");
    bed.take(&second);
    assert_eq!(bed.answer(&[one]), "nothing");
}

#[test]
fn claims_of_a_pod_do_not_get_the_same_device() {
    let bed = Bed::new(&[slice("s", devices(&["a", "b", "c"]), json!({}))]);
    let two = claim(json!({"requests": [want("r", json!({"count": 2}))]}));
    let one = claim(json!({"requests": [want("r", json!({}))]}));
    assert_eq!(bed.answer(&[two.clone(), one]), "r=a r=b; r=c");
    assert_eq!(bed.answer(&[two.clone(), two]), "nothing");
}

#[test]
fn pools_are_taken_by_name_and_generation() {
    let of = |name: &str, pool: &str, generation: i64, count: i64, device: &str| {
        let pool = json!({"name": pool, "generation": generation, "resourceSliceCount": count});
        slice(name, devices(&[device]), json!({"pool": pool}))
    };
    let one = [claim(json!({"requests": [want("r", json!({}))]}))];
    // Whatever the order of slices; the older generation is gone.
    let slices = [of("1", "q", 1, 1, "q1"), of("2", "p", 1, 1, "old"), of("3", "p", 2, 1, "new")];
    assert_eq!(Bed::new(&slices).answer(&one), "r=new");
    // A pool that misses a slice is left alone, and nobody can have all of it.
    let part = Bed::new(&[of("1", "p", 2, 2, "part")]);
    assert_eq!(part.answer(&one), "nothing");
    let all = want("r", json!({"allocationMode": "All", "count": 0}));
    assert_eq!(
        part.answer(&[claim(json!({"requests": [all]}))]),
        "claim ns/c, request r: asks for all devices, but resource pool d/p is currently being updated"
    );
    // Slices of other nodes count for completeness.
    let mut far = of("2", "p", 2, 2, "far");
    far["spec"]["nodeName"] = "m".into();
    assert_eq!(Bed::new(&[of("1", "p", 2, 2, "near"), far.clone()]).answer(&one), "r=near");
    // The generation that only other nodes have yet makes the pool obsolete here.
    far["spec"]["pool"]["generation"] = 3.into();
    assert_eq!(Bed::new(&[of("1", "p", 2, 2, "near"), far]).answer(&one), "nothing");
}

#[test]
fn a_pool_with_equal_names_is_invalid() {
    let bed = Bed::new(&[slice("s", devices(&["a", "a"]), json!({}))]);
    let one = claim(json!({"requests": [want("r", json!({}))]}));
    assert_eq!(bed.answer(&[one]), "node: invalid resource pools were encountered");
    let all = want("r", json!({"allocationMode": "All", "count": 0}));
    assert_eq!(
        bed.answer(&[claim(json!({"requests": [all]}))]),
        "claim ns/c, request r: asks for all devices, but resource pool d/p is currently invalid"
    );
}

#[test]
fn devices_are_where_their_slice_says() {
    let one = [claim(json!({"requests": [want("r", json!({}))]}))];
    let at = |place: Value| {
        let bed = Bed::new(&[slice("s", devices(&["a"]), place)]);
        let result = bed.allocate(&one).unwrap();
        result.map(|r| serde_json::to_value(&r[0].node_selector).unwrap())
    };
    let here = json!({"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name",
        "operator": "In", "values": ["n"]}]}]});
    let zone = |value: &str| {
        json!({"nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "In",
            "values": [value]}]}]})
    };
    assert_eq!(at(json!({"nodeName": "n"})), Some(here));
    assert_eq!(at(json!({"nodeName": "m"})), None);
    assert_eq!(at(json!({"allNodes": true})), Some(Value::Null));
    assert_eq!(at(json!({"nodeSelector": zone("a")})), Some(zone("a")));
    assert_eq!(at(json!({"nodeSelector": zone("b")})), None);
}

#[test]
fn a_device_may_have_a_place_of_its_own() {
    let own = json!([{"name": "far", "nodeName": "m"}, {"name": "near", "nodeName": "n"},
        {"name": "bound", "allNodes": true, "bindsToNode": true}]);
    let bed = Bed::new(&[slice("s", own, json!({"perDeviceNodeSelection": true}))]);
    let two = claim(json!({"requests": [want("r", json!({"count": 2}))]}));
    assert_eq!(bed.answer(&[two]), "r=near r=bound");
    let three = claim(json!({"requests": [want("r", json!({"count": 3}))]}));
    assert_eq!(bed.answer(&[three]), "nothing");
}

#[test]
fn selectors_look_at_attributes_and_capacity() {
    let bed = Bed::new(&[slice("s", gpus(), json!({"driver": "driver.example.com"}))]);
    let of = |expression: &str| {
        let wanted = want("r", json!({"selectors": cel(expression)}));
        bed.answer(&[claim(json!({"requests": [wanted]}))])
    };
    let own = |rest: &str| of(&format!("device.attributes[\"driver.example.com\"].{rest}"));
    assert_eq!(own("size == 1"), "r=small");
    assert_eq!(own("model == \"x\""), "r=big");
    assert_eq!(own("fw.isGreaterThan(semver(\"1.9.9\"))"), "r=big");
    assert_eq!(
        of("device.capacity[\"driver.example.com\"].memory.compareTo(quantity(\"10Gi\")) < 0"),
        "r=small"
    );
    assert_eq!(of("device.driver == \"other\""), "nothing");
    assert_eq!(
        of(
            "cel.bind(own, device.attributes[\"driver.example.com\"], own.size == 1 && own.numa == 0)"
        ),
        "nothing"
    );
    // A domain that no attribute has is empty; an attribute that is missing is an error.
    assert_eq!(of("\"x\" in device.attributes[\"nobody.example.com\"]"), "nothing");
    assert_eq!(of("\"nobody.example.com\" in device.attributes"), "nothing");
    assert_eq!(
        of("device.attributes[\"nobody.example.com\"].x"),
        "claim ns/c: selector #0: CEL runtime error: no such key: x"
    );
    assert!(of("device.nothing").starts_with(
        "claim ns/c: selector #0: CEL compile error: compilation failed: ERROR: <input>:1:7: \
         undefined field 'nothing'"
    ));
    assert_eq!(
        of("device.driver"),
        "claim ns/c: selector #0: CEL compile error: must evaluate to bool or the unknown type, \
         not string"
    );
}

#[test]
fn a_class_restricts_and_must_exist() {
    let mut bed = Bed::new(&[slice("s", gpus(), json!({}))]);
    bed.class("one", json!({"selectors": cel("device.attributes[\"d\"].size == 1")}));
    bed.class("bad", json!({"selectors": cel("device.attributes[\"d\"].nothing")}));
    let of = |class: &str| {
        let wanted = want("r", json!({"deviceClassName": class}));
        bed.answer(&[claim(json!({"requests": [wanted]}))])
    };
    assert_eq!(of("one"), "r=small");
    assert_eq!(of("bad"), "class bad: selector #0: CEL runtime error: no such key: nothing");
    assert_eq!(
        of("gone"),
        "claim ns/c, request r: could not retrieve device class gone: \
         deviceclass.resource.k8s.io \"gone\" not found"
    );
}

#[test]
fn all_devices_are_all_that_match() {
    let mut bed = Bed::new(&[slice("s", gpus(), json!({}))]);
    let all = |expression: &str| {
        let selectors = cel(expression);
        let wanted =
            want("r", json!({"allocationMode": "All", "count": 0, "selectors": selectors}));
        claim(json!({"requests": [wanted]}))
    };
    let small = all("device.attributes[\"d\"].size == 1");
    assert_eq!(bed.answer(std::slice::from_ref(&small)), "r=small r=tiny");
    assert_eq!(bed.answer(&[all("device.attributes[\"d\"].size == 2")]), "nothing");
    // All is all: one that is taken is missing.
    let taken = bed.allocate(&[all("device.attributes[\"d\"].numa == 0")]).unwrap().unwrap();
    bed.take(&taken);
    assert_eq!(bed.answer(&[all("true")]), "nothing");
    assert_eq!(bed.answer(&[small]), "r=small r=tiny");
}

#[test]
fn the_first_alternative_that_can_be_had_is_taken() {
    let bed = Bed::new(&[slice("s", gpus(), json!({}))]);
    let alternative = |name: &str, size: i64, count: i64| {
        json!({"name": name, "deviceClassName": "any", "allocationMode": "ExactCount",
            "count": count,
            "selectors": cel(&format!("device.attributes[\"d\"].size == {size}"))})
    };
    let of = |alternatives: Value| {
        bed.answer(&[claim(json!({"requests": [{"name": "r", "firstAvailable": alternatives},
            want("more", json!({}))]}))])
    };
    assert_eq!(
        of(json!([alternative("a", 8, 2), alternative("b", 1, 2)])),
        "r/b=small r/b=tiny more=big"
    );
    // The second request makes the first give up its better alternative.
    assert_eq!(
        of(json!([alternative("a", 1, 2), alternative("b", 8, 1)])),
        "r/a=small r/a=tiny more=big"
    );
    assert_eq!(of(json!([alternative("a", 8, 2)])), "nothing");
}

#[test]
fn a_claim_holds_no_more_devices_than_its_status() {
    let names: Vec<String> = (0..40).map(|n| format!("dev-{n:02}")).collect();
    let many: Value = names.iter().map(|name| json!({"name": name})).collect();
    let bed = Bed::new(&[slice("s", many, json!({}))]);
    let of = |requests: Value| bed.answer(&[claim(json!({"requests": requests}))]);
    assert_eq!(of(json!([want("r", json!({"count": 32}))])).split(' ').count(), 32);
    assert_eq!(
        of(json!([want("r", json!({"count": 33}))])),
        "claim ns/c: number of requested devices 33 exceeds the claim limit of 32"
    );
    let alternative = |name: &str, count: i64| {
        json!({"name": name, "deviceClassName": "any", "allocationMode": "ExactCount",
            "count": count})
    };
    let either =
        json!({"name": "r", "firstAvailable": [alternative("a", 20), alternative("b", 2)]});
    let answer = of(json!([want("first", json!({"count": 20})), either]));
    assert!(answer.ends_with("r/b=dev-20 r/b=dev-21"), "{answer}");
}

#[test]
fn constraints_hold_between_devices() {
    let bed = Bed::new(&[slice("s", gpus(), json!({}))]);
    let of = |constraint: Value, count: i64| {
        let wanted = want("r", json!({"count": count}));
        bed.answer(&[claim(json!({"requests": [wanted], "constraints": [constraint]}))])
    };
    assert_eq!(of(json!({"matchAttribute": "d/numa"}), 2), "r=small r=tiny");
    assert_eq!(of(json!({"matchAttribute": "d/numa"}), 3), "nothing");
    assert_eq!(of(json!({"distinctAttribute": "d/numa"}), 2), "r=big r=small");
    assert_eq!(of(json!({"distinctAttribute": "d/numa"}), 3), "nothing");
    assert_eq!(of(json!({"matchAttribute": "d/nothing"}), 1), "nothing");
    assert_eq!(
        of(json!({"requests": ["other"], "matchAttribute": "d/numa"}), 3),
        "r=big r=small r=tiny"
    );
    assert_eq!(
        of(json!({}), 1),
        "claim ns/c, constraint #0: empty constraint (unsupported constraint type?)"
    );
    let all = want("r", json!({"allocationMode": "All", "count": 0}));
    let same = json!([{"matchAttribute": "d/numa"}]);
    assert_eq!(
        bed.answer(&[claim(json!({"requests": [all], "constraints": same}))]),
        "claim ns/c, request r: cannot add device d/p/small because a claim constraint would not be \
         satisfied"
    );
}

#[test]
fn requests_take_one_another_into_account() {
    let bed = Bed::new(&[slice("s", gpus(), json!({}))]);
    let big = want("b", json!({"selectors": cel("device.attributes[\"d\"].size == 8")}));
    // First fit alone would give the first request the only device that does for the second.
    assert_eq!(
        bed.answer(&[claim(json!({"requests": [want("a", json!({})), big]}))]),
        "a=small b=big"
    );
}

#[test]
fn taints_keep_away_those_who_do_not_tolerate_them() {
    let tainted = json!([{"name": "bad", "taints": [{"key": "k", "value": "v",
        "effect": "NoSchedule"}]}, {"name": "odd", "taints": [{"key": "k", "effect": "None"}]}]);
    let bed = Bed::new(&[slice("s", tainted, json!({}))]);
    let of = |tolerations: Value| {
        bed.answer(&[claim(json!({"requests": [want("r", json!({"tolerations": tolerations}))]}))])
    };
    assert_eq!(of(json!([])), "r=odd");
    assert_eq!(of(json!([{"key": "k", "operator": "Exists"}])), "r=bad");
    assert_eq!(of(json!([{"key": "k", "operator": "Equal", "value": "w"}])), "r=odd");
}

#[test]
fn configurations_of_classes_and_claims_come_along() {
    let mut bed = Bed::new(&[slice("s", devices(&["a", "b"]), json!({}))]);
    let opaque = |n: i64| json!({"driver": "d", "parameters": {"n": n}});
    bed.class("set", json!({"config": [{"opaque": opaque(1)}]}));
    let wanted = |name: &str| want(name, json!({"deviceClassName": "set"}));
    let own = json!([{"opaque": opaque(2)}, {"requests": ["y"], "opaque": opaque(3)},
        {"requests": ["z"], "opaque": opaque(4)}]);
    let asked = claim(json!({"requests": [wanted("x"), wanted("y")], "config": own}));
    let result = bed.allocate(&[asked]).unwrap().unwrap();
    let config = serde_json::to_value(&result[0].devices.as_ref().unwrap().config).unwrap();
    assert_eq!(
        config,
        json!([
            {"source": "FromClass", "requests": ["x", "y"], "opaque": opaque(1)},
            {"source": "FromClaim", "opaque": opaque(2)},
            {"source": "FromClaim", "requests": ["y"], "opaque": opaque(3)}])
    );
}

#[test]
fn a_search_that_takes_too_long_is_ended() {
    let bed = Bed::new(&[slice("s", devices(&["a"]), json!({}))]);
    let environment = Environment {
        class: &|_| Some(Default::default()),
        share_id: &String::new,
        is_late: &|| true,
    };
    let one = claim(json!({"requests": [want("r", json!({}))]}));
    assert_eq!(bed.allocate_in(environment, &[one]), Err(Fault::Late));
}
