//! Cutting node networks.

use super::plan::Pool;

#[test]
fn networks_are_cut_in_turn_and_come_back() {
    let mut pool = Pool::new("10.244.0.0/22".parse().unwrap(), 24).unwrap();
    pool.occupy(&"10.244.1.0/24".parse().unwrap());
    let mut take = || pool.take().map(|n| n.to_string());
    assert_eq!(take().as_deref(), Some("10.244.0.0/24"));
    assert_eq!(take().as_deref(), Some("10.244.2.0/24"));
    assert_eq!(take().as_deref(), Some("10.244.3.0/24"));
    assert_eq!(take(), None);
    pool.release(&"10.244.1.0/24".parse().unwrap());
    assert_eq!(pool.take().unwrap().to_string(), "10.244.1.0/24");
}

#[test]
fn six_works_too_and_misfits_are_refused() {
    let mut pool = Pool::new("fd00:10::/56".parse().unwrap(), 64).unwrap();
    pool.take().unwrap();
    assert_eq!(pool.take().unwrap().to_string(), "fd00:10:0:1::/64");
    assert!(Pool::new("10.0.0.0/24".parse().unwrap(), 16).is_none());
}
