//! The set of taken node ports, in the form that servers of one etcd share: a RangeAllocation.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// Taken ports of one range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PortSet {
    range: RangeInclusive<u16>,
    taken: BTreeSet<u16>,
}

impl PortSet {
    pub(super) fn new(range: RangeInclusive<u16>) -> PortSet {
        PortSet { range, taken: BTreeSet::new() }
    }

    /// Reads a RangeAllocation: a big-endian number whose lowest bit stands for the first port.
    pub(super) fn parse(object: &Value) -> Result<PortSet, String> {
        let text = validation::text(&object["range"]);
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let port = |text: &str| text.parse::<u16>().map_err(|_| format!("{text:?} is no port"));
        let range = port(first)?..=port(last)?;
        let data = STANDARD.decode(validation::text(&object["data"])).map_err(|e| e.to_string())?;
        let bits = data.iter().rev().enumerate().flat_map(|(at, byte)| {
            (0..8).filter(move |bit| byte >> bit & 1 == 1).map(move |bit| at * 8 + bit)
        });
        let number = |offset: usize| u16::try_from(usize::from(*range.start()) + offset).ok();
        let taken = bits.filter_map(number).filter(|port| range.contains(port)).collect();
        Ok(PortSet { range, taken })
    }

    pub(super) fn to_object(&self) -> Value {
        let offset = |port: u16| usize::from(port - self.range.start());
        let highest = self.taken.last().map_or(0, |last| offset(*last) / 8 + 1);
        let mut data = vec![0_u8; highest];
        for port in &self.taken {
            data[highest - 1 - offset(*port) / 8] |= 1 << (offset(*port) % 8);
        }
        json!({"apiVersion": "v1", "kind": "RangeAllocation", "metadata": {},
            "range": format!("{}-{}", self.range.start(), self.range.end()),
            "data": STANDARD.encode(data)})
    }

    pub(super) fn range(&self) -> &RangeInclusive<u16> {
        &self.range
    }

    pub(super) fn contains(&self, port: u16) -> bool {
        self.taken.contains(&port)
    }

    /// Whether it was free.
    pub(super) fn insert(&mut self, port: u16) -> bool {
        self.taken.insert(port)
    }

    /// Whether it was taken.
    pub(super) fn remove(&mut self, port: u16) -> bool {
        self.taken.remove(&port)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        self.taken.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::PortSet;

    #[test]
    fn ports_are_bits_of_a_number_without_leading_zeros() {
        let mut ports = PortSet::new(30000..=32767);
        assert_eq!(ports.to_object()["data"], "");
        ports.insert(30001);
        ports.insert(30008);
        let object = ports.to_object();
        assert_eq!((&object["range"], &object["data"]), (&"30000-32767".into(), &"AQI=".into()));
        assert_eq!(PortSet::parse(&object), Ok(ports.clone()));
        ports.insert(32767);
        assert_eq!(PortSet::parse(&ports.to_object()), Ok(ports.clone()));
        assert!(ports.remove(32767) && ports.remove(30008) && !ports.remove(30008));
        assert_eq!(ports.to_object()["data"], "Ag==");
    }

    #[test]
    fn what_is_no_range_is_said() {
        let parse = |range: &str, data: &str| {
            PortSet::parse(&serde_json::json!({"range": range, "data": data}))
        };
        assert!(parse("", "").expect_err("no range").contains("no port"));
        assert!(parse("30000-99999", "").expect_err("too large").contains("99999"));
        assert!(parse("30000-30010", "*").is_err());
        // Bits behind the range are not ports of it.
        assert_eq!(parse("65530-65535", "////").expect("parses").iter().count(), 6);
    }
}
