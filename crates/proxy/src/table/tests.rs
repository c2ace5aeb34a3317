//! Differences between states: only what changed, and shared entries by order, not by time.

use super::*;
use crate::fragment::Rule;
use crate::model::Protocol;

fn owner(name: &str) -> Owner {
    Owner::Service(ServiceKey::new("d", name))
}

fn entry(port: u16) -> Entry {
    Entry::NodePort { v6: false, protocol: Protocol::Tcp, port }
}

fn fragment(chain: &str, endpoint: &str, port: u16) -> Fragment {
    let rule = Rule::Balance(vec![endpoint.parse().unwrap()]);
    let mut fragment = Fragment::default();
    fragment
        .chains
        .insert(chain.into(), Chain { v6: false, protocol: Protocol::Tcp, rules: vec![rule] });
    fragment.entries.insert(entry(port), Target::Goto(chain.into()));
    fragment
}

#[test]
fn a_changed_endpoint_rewrites_one_chain_and_nothing_else() {
    let mut table = Table::default();
    let first = table.replace([
        (owner("a"), Some(fragment("a", "10.0.0.1:1", 1))),
        (owner("b"), Some(fragment("b", "10.0.0.2:1", 2))),
    ]);
    assert_eq!((first.add_chains.len(), first.add_entries.len()), (2, 2));
    assert!(table.replace([(owner("a"), Some(fragment("a", "10.0.0.1:1", 1)))]).is_empty());
    let change = table.replace([(owner("a"), Some(fragment("a", "10.0.0.9:1", 1)))]);
    let expected = Operations {
        flush_chains: ["a".to_owned()].into(),
        fill_chains: fragment("a", "10.0.0.9:1", 1).chains,
        ..Operations::default()
    };
    assert_eq!(change, expected);
    let gone = table.replace([(owner("a"), None)]);
    assert_eq!(gone.delete_entries, [(entry(1), Target::Goto("a".into()))]);
    assert_eq!(gone.delete_chains, ["a".to_owned()].into());
    assert_eq!(table.all().add_chains, ["b".to_owned()].into());
}

#[test]
fn an_entry_two_want_is_the_first_ones_whoever_came_first() {
    let mut table = Table::default();
    table.replace([(owner("b"), Some(fragment("b", "10.0.0.2:1", 7)))]);
    let taken = table.replace([(owner("a"), Some(fragment("a", "10.0.0.1:1", 7)))]);
    assert_eq!(taken.delete_entries, [(entry(7), Target::Goto("b".into()))]);
    assert_eq!(taken.add_entries, [(entry(7), Target::Goto("a".into()))]);
    let back = table.replace([(owner("a"), None)]);
    assert_eq!(back.add_entries, [(entry(7), Target::Goto("b".into()))]);
}
