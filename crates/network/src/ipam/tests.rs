//! The allocator's promises: no address twice, releases reused last, a torn file is readable.

use super::*;

fn range(text: &str) -> IpNet {
    text.parse().unwrap()
}

#[test]
fn addresses_are_unique_and_released_ones_come_last() {
    let dir = tempfile::tempdir().unwrap();
    let mut ipam = Ipam::open(dir.path().join("a"), &[range("10.42.0.0/29")]).unwrap();
    assert_eq!(ipam.gateways(), ["10.42.0.1".parse::<IpAddr>().unwrap()]);
    let a = ipam.allocate("a").unwrap();
    assert_eq!(a, ipam.allocate("a").unwrap());
    let b = ipam.allocate("b").unwrap();
    assert!(ipam.release("b").unwrap());
    assert!(ipam.release("a").unwrap());
    assert!(!ipam.release("a").unwrap());
    let rest: Vec<_> = (0..5).map(|n| ipam.allocate(&format!("p{n}")).unwrap()).collect();
    assert_eq!(rest[3..], [b, a], "fresh ones first, then the oldest release");
    assert!(matches!(ipam.allocate("one-more"), Err(IpamError::Exhausted(_))));
}

#[test]
fn state_survives_reopening_and_a_torn_last_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    let ranges = [range("10.42.0.0/24"), range("fd00:42::/64")];
    let (a, b) = {
        let mut ipam = Ipam::open(&path, &ranges).unwrap();
        assert!(matches!(Ipam::open(&path, &ranges), Err(IpamError::Locked(_))));
        let a = ipam.allocate("a").unwrap();
        let b = ipam.allocate("b").unwrap();
        ipam.allocate("gone").unwrap();
        ipam.release("gone").unwrap();
        (a, b)
    };
    let mut file = File::options().append(true).open(&path).unwrap();
    file.write_all(b"+ 77 half").unwrap();
    let mut ipam = Ipam::open(&path, &ranges).unwrap();
    assert_eq!(ipam.get("a"), Some(a));
    assert_eq!(ipam.get("b"), Some(b));
    assert_eq!(ipam.get("half"), None);
    assert_eq!(ipam.allocate("c").unwrap()[0], "10.42.0.5".parse::<IpAddr>().unwrap());
    assert_eq!(ipam.allocate("d").unwrap()[1], "fd00:42::6".parse::<IpAddr>().unwrap());
}

#[test]
fn bad_ranges_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let open = |ranges: &[IpNet]| Ipam::open(dir.path().join("x"), ranges);
    assert!(matches!(open(&[range("10.0.0.0/31")]), Err(IpamError::TooSmall(_))));
    assert!(matches!(open(&[]), Err(IpamError::BadFamilies(_))));
    let twice = [range("10.0.0.0/24"), range("10.1.0.0/24")];
    assert!(matches!(open(&twice), Err(IpamError::BadFamilies(_))));
}
