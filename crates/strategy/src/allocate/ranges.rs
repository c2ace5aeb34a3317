//! The ranges that cluster IPs come from: those of all ServiceCIDRs that are ready (KEP-1880).

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use store::Collection;

use super::network::{contains, nth, nth_masked};

/// The ServiceCIDR with the ranges that the server was started with.
pub const DEFAULT: &str = "kubernetes";

/// A network that Services get addresses from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    base: IpAddr,
    bits: u8,
}

impl Range {
    pub(super) fn new(ip: IpAddr, bits: u8) -> Range {
        Range { base: nth_masked(ip, bits), bits }
    }

    fn parse(text: &str) -> Option<Range> {
        let (ip, bits) = text.split_once('/')?;
        let (ip, bits): (IpAddr, u8) = (ip.parse().ok()?, bits.parse().ok()?);
        (bits <= if ip.is_ipv4() { 32 } else { 128 }).then(|| Range::new(ip, bits))
    }

    pub(super) fn is_ipv6(&self) -> bool {
        self.base.is_ipv6()
    }

    pub(super) fn contains(&self, ip: IpAddr) -> bool {
        contains((self.base, self.bits), ip)
    }

    fn size(&self) -> u128 {
        let width = if self.is_ipv6() { 128 } else { 32 };
        1_u128.checked_shl(width - u32::from(self.bits)).unwrap_or(u128::MAX)
    }

    /// Addresses that may be given out: neither the network's own nor, of IPv4, the one for all.
    fn hosts(&self) -> u128 {
        self.size().saturating_sub(if self.is_ipv6() { 1 } else { 2 })
    }

    /// The address at a place among those that may be given out.
    pub(super) fn host(&self, n: u128) -> IpAddr {
        nth(self.base, n + 1)
    }

    /// Whether an address of the network may be given out.
    pub(super) fn is_host(&self, ip: IpAddr) -> bool {
        let broadcast = !self.is_ipv6() && ip == nth(self.base, self.size() - 1);
        self.contains(ip) && ip != self.base && !broadcast
    }

    /// How many of the lowest are left for those who choose theirs, as long as others are free (KEP-3070).
    fn reserved(&self) -> u128 {
        match self.size() {
            0..=16 => 0,
            size => (size / 16).clamp(16, 256),
        }
    }

    /// Places in the order in which they are tried: from `start` on, the lowest last.
    pub(super) fn places(&self, start: u128) -> impl Iterator<Item = u128> + use<> {
        let (reserved, hosts) = (self.reserved(), self.hosts());
        let upper = hosts.saturating_sub(reserved);
        let high = (0..upper).map(move |step| reserved + (start % upper + step) % upper);
        high.chain(0..reserved.min(hosts))
    }

    /// Where the next search starts when this place was the last one's.
    pub(super) fn after(&self, place: u128) -> u128 {
        place.saturating_sub(self.reserved()) + 1
    }
}

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.base, self.bits)
    }
}

/// Ready ranges, as the stored ServiceCIDRs have them.
#[derive(Debug)]
pub(super) struct Ranges {
    /// Those that the server was started with.
    configured: Vec<Range>,
    stored: Option<Arc<Collection>>,
    /// With the last change of the collection that they are from.
    known: Mutex<Option<(u64, Arc<[Range]>)>>,
}

impl Ranges {
    pub(super) fn new(configured: &[(IpAddr, u8)], stored: Option<Arc<Collection>>) -> Ranges {
        let configured = configured.iter().map(|(ip, bits)| Range::new(*ip, *bits)).collect();
        Ranges { configured, stored, known: Mutex::default() }
    }

    /// Those that addresses may come from now, the configured ones first.
    pub(super) fn ready(&self) -> Arc<[Range]> {
        let Some(stored) = &self.stored else { return self.configured.clone().into() };
        // Taken before the list is: what changes in between is seen next time.
        let last_change = stored.last_change();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((as_of, ranges)) = &*known
            && *as_of == last_change
        {
            return ranges.clone();
        }
        let all = stored.list("", None, 0, usize::MAX, &|_| true);
        let all = all.map(|page| page.objects).unwrap_or_default();
        let all: Vec<Value> = all.iter().map(|object| object.to_value()).collect();
        let ranges: Arc<[Range]> = ready(&self.configured, &all).into();
        *known = Some((last_change, ranges.clone()));
        ranges
    }
}

/// The ranges of the ServiceCIDRs that are ready. While the default ServiceCIDR has no Ready condition (the cluster
/// is starting), the configured ranges are ready.
fn ready(configured: &[Range], all: &[Value]) -> Vec<Range> {
    let default = all.iter().find(|object| object["metadata"]["name"] == DEFAULT);
    let judged = default.is_some_and(is_judged);
    let mut ranges: Vec<Range> = if judged { Vec::new() } else { configured.to_vec() };
    let of = |object: &Value| -> Vec<Range> {
        let texts = object["spec"]["cidrs"].as_array().into_iter().flatten();
        texts.filter_map(|text| Range::parse(text.as_str()?)).collect()
    };
    let first = default.into_iter();
    let others = all.iter().filter(|object| object["metadata"]["name"] != DEFAULT);
    for range in first.chain(others).filter(|object| is_ready(object)).flat_map(of) {
        if !ranges.contains(&range) {
            ranges.push(range);
        }
    }
    ranges
}

fn conditions(object: &Value) -> impl Iterator<Item = &Value> {
    let all = object["status"]["conditions"].as_array().into_iter().flatten();
    all.filter(|condition| condition["type"] == "Ready")
}

fn is_ready(object: &Value) -> bool {
    let is_ending = object["metadata"]["deletionTimestamp"].is_string();
    !is_ending && conditions(object).any(|condition| condition["status"] == "True")
}

/// Whether somebody has said that it is ready, or is not.
pub fn is_judged(object: &Value) -> bool {
    let is_ending = object["metadata"]["deletionTimestamp"].is_string();
    is_ending || conditions(object).any(|condition| condition["status"] != "Unknown")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Range, ready};

    fn range(text: &str) -> Range {
        Range::parse(text).expect("a range")
    }

    fn cidr(name: &str, cidrs: &[&str], ready: &str) -> Value {
        json!({"metadata": {"name": name}, "spec": {"cidrs": cidrs},
            "status": {"conditions": [{"type": "Ready", "status": ready}]}})
    }

    #[test]
    fn only_what_is_ready_gives_addresses() {
        let configured = [range("10.0.0.0/16")];
        let of = |all: &[Value]| {
            ready(&configured, all).iter().map(Range::to_string).collect::<Vec<_>>()
        };
        assert_eq!(of(&[]), ["10.0.0.0/16"]);
        let default = |status| cidr("kubernetes", &["10.0.0.0/16"], status);
        assert_eq!(of(&[default("Unknown")]), ["10.0.0.0/16"]);
        assert_eq!(of(&[default("True")]), ["10.0.0.0/16"]);
        assert_eq!(of(&[default("False")]), [] as [&str; 0]);
        let more = cidr("a", &["10.9.0.7/24", "fd00::/112", "10.0.0.0/16", "x"], "True");
        let all = ["10.0.0.0/16", "10.9.0.0/24", "fd00::/112"];
        assert_eq!(of(&[more.clone(), default("True")]), all);
        assert_eq!(of(&[default("True"), cidr("a", &["10.9.0.0/24"], "False")]), all[..1]);
        let mut ends = more;
        ends["metadata"]["deletionTimestamp"] = "2026-11-28T00:00:00Z".into();
        assert_eq!(of(&[default("True"), ends]), all[..1]);
    }

    #[test]
    fn every_address_is_tried_once_and_the_lowest_last() {
        for (text, hosts, reserved) in [
            ("10.0.0.0/24", 254, 16),
            ("10.0.0.0/28", 14, 0),
            ("10.0.0.0/27", 30, 16),
            ("fd00::/124", 15, 0),
        ] {
            let range = range(text);
            let places: Vec<u128> = range.places(1000).collect();
            let mut sorted = places.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..hosts).collect::<Vec<_>>(), "{text}");
            let tail = &places[places.len() - reserved..];
            assert_eq!(tail, (0..reserved as u128).collect::<Vec<_>>(), "{text}");
            assert!(places.iter().all(|n| range.is_host(range.host(*n))), "{text}");
        }
        assert_eq!(range("10.0.0.0/31").places(3).count(), 0);
        assert_eq!(range("10.0.0.0/32").places(3).count(), 0);
        let large = range("10.0.0.0/16");
        let first = large.places(7).next().expect("many");
        assert_eq!(large.places(large.after(first)).next(), Some(first + 1));
        let large = range("fd00::/64");
        assert_eq!(
            large.places(u128::MAX - 5).take(3).filter(|n| large.is_host(large.host(*n))).count(),
            3
        );
    }

    #[test]
    fn a_network_is_not_given_out_itself() {
        let (four, six) = (range("10.0.0.0/24"), range("fd00::/120"));
        for (range, ip, is) in [
            (four, "10.0.0.0", false),
            (four, "10.0.0.1", true),
            (four, "10.0.0.255", false),
            (four, "10.0.1.1", false),
            (six, "fd00::", false),
            (six, "fd00::ff", true),
        ] {
            assert_eq!(range.is_host(ip.parse().expect("an address")), is, "{ip}");
        }
    }
}
