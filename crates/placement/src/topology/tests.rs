//! Policies on hints, as upstream's tables have them, and options refused.

use std::collections::BTreeMap;

use super::*;
use crate::provider::Hints;

fn mask(nodes: &[usize]) -> NumaMask {
    NumaMask::of(nodes.iter().copied())
}

fn hint(nodes: &[usize], preferred: bool) -> Hint {
    Hint::new(mask(nodes), preferred)
}

fn provider(list: Option<Vec<Hint>>) -> Hints {
    Hints::from([("resource".to_owned(), list)])
}

fn decide(policy: PolicyName, providers: &[Hints]) -> (Hint, bool) {
    let node = |id| NumaNode { id, distances: vec![10, 20], ..NumaNode::default() };
    let options = TopologyOptions::default();
    let made = Topology::new(policy, Scope::Container, options, &[node(0), node(1)]);
    made.unwrap().decide(providers)
}

#[test]
fn hints_are_merged_into_the_narrowest_common_choice() {
    let both = hint(&[0, 1], false);
    let cases = [
        (vec![], hint(&[0, 1], true)),
        (vec![provider(None)], hint(&[0, 1], true)),
        (vec![provider(Some(vec![]))], both),
        (vec![provider(Some(vec![hint(&[0], true)])), Hints::new()], hint(&[0], true)),
        (
            vec![
                provider(Some(vec![hint(&[0], true), both])),
                provider(Some(vec![hint(&[1], true), both])),
            ],
            hint(&[0], false),
        ),
        (
            vec![
                provider(Some(vec![hint(&[0], true), hint(&[1], true), both])),
                provider(Some(vec![hint(&[1], true), both])),
            ],
            hint(&[1], true),
        ),
        (
            vec![provider(Some(vec![hint(&[0], true)])), provider(Some(vec![hint(&[1], true)]))],
            both,
        ),
    ];
    for (providers, expected) in cases {
        assert_eq!(decide(PolicyName::BestEffort, &providers), (expected, true));
        let restricted = decide(PolicyName::Restricted, &providers);
        assert_eq!(restricted, (expected, expected.preferred));
    }
}

#[test]
fn a_single_node_must_serve_everything() {
    let one = [provider(Some(vec![hint(&[0], true), hint(&[0, 1], false)]))];
    assert_eq!(decide(PolicyName::SingleNumaNode, &one), (hint(&[0], true), true));
    let wide = [provider(Some(vec![hint(&[0, 1], true)]))];
    assert_eq!(decide(PolicyName::SingleNumaNode, &wide), (Hint::any(false), false));
    let nothing = [provider(None)];
    assert_eq!(decide(PolicyName::SingleNumaNode, &nothing), (Hint::any(true), true));
}

#[test]
fn near_nodes_win_if_they_are_preferred_by_option() {
    let distances = [[10, 21, 31, 12], [21, 10, 12, 31], [31, 12, 10, 21], [12, 31, 21, 10]];
    let node = |id: usize| NumaNode { id, distances: distances[id].into(), ..NumaNode::default() };
    let nodes: Vec<NumaNode> = (0..4).map(node).collect();
    let hints = [provider(Some(vec![hint(&[0, 1], true), hint(&[0, 3], true)]))];
    let best = |closest: &str| {
        let options = BTreeMap::from([("prefer-closest-numa-nodes".into(), closest.into())]);
        let options = TopologyOptions::parse(&options).unwrap();
        let made = Topology::new(PolicyName::BestEffort, Scope::Container, options, &nodes);
        made.unwrap().decide(&hints).0
    };
    assert_eq!(best("false"), hint(&[0, 1], true));
    assert_eq!(best("true"), hint(&[0, 3], true));
}

#[test]
fn policies_options_and_machines_are_refused() {
    let parse = |name: &str, value: &str| {
        TopologyOptions::parse(&BTreeMap::from([(name.to_owned(), value.to_owned())])).unwrap_err()
    };
    assert_eq!(parse("x", "1"), "unknown Topology Manager Policy option: \"x\"");
    assert_eq!(
        parse("max-allowable-numa-nodes", "7"),
        "the minimum value of \"max-allowable-numa-nodes\" should not be less than 8"
    );
    assert!(parse("max-allowable-numa-nodes", "a").starts_with("unable to convert"));
    assert!(parse("prefer-closest-numa-nodes", "a").starts_with("bad value for option"));
    assert!(PolicyName::parse("x").is_err() && Scope::parse("x").is_err());
    let nodes: Vec<NumaNode> = (0..9).map(|id| NumaNode { id, ..NumaNode::default() }).collect();
    let made = |policy| Topology::new(policy, Scope::Pod, TopologyOptions::default(), &nodes);
    assert!(made(PolicyName::None).is_ok());
    assert_eq!(
        made(PolicyName::Restricted).unwrap_err(),
        "unsupported on machines with more than 8 NUMA Nodes"
    );
}
