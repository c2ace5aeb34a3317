//! Sets of CPUs, in the kernel's list form.

use std::collections::BTreeSet;
use std::fmt;

use crate::go;

/// More CPUs than the kernel supports on any machine; a longer range is a mistake.
const CPUS_MAX: usize = 1 << 16;

/// A set of CPU ids.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct CpuSet(BTreeSet<usize>);

impl CpuSet {
    pub fn new() -> CpuSet {
        CpuSet::default()
    }

    /// Reads a list such as `0-3,7`. Errors are upstream's.
    pub fn parse(text: &str) -> Result<CpuSet, String> {
        let mut set = BTreeSet::new();
        if text.is_empty() {
            return Ok(CpuSet(set));
        }
        for range in text.split(',') {
            let (start, end) = range.split_once('-').unwrap_or((range, range));
            let (start, end) = (go::atoi(start)?, go::atoi(end)?);
            if start > end {
                return Err(format!("invalid range {range:?} ({start} > {end})"));
            }
            let (first, last) = (usize::try_from(start), usize::try_from(end));
            let (Ok(first), Ok(last)) = (first, last) else {
                return Err(format!("invalid range {range:?}"));
            };
            if last >= CPUS_MAX {
                return Err(format!("invalid range {range:?}: more than {CPUS_MAX} CPUs"));
            }
            set.extend(first..=last);
        }
        Ok(CpuSet(set))
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn contains(&self, cpu: usize) -> bool {
        self.0.contains(&cpu)
    }

    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().copied()
    }

    #[must_use]
    pub fn union(&self, other: &CpuSet) -> CpuSet {
        CpuSet(self.0.union(&other.0).copied().collect())
    }

    #[must_use]
    pub fn intersection(&self, other: &CpuSet) -> CpuSet {
        CpuSet(self.0.intersection(&other.0).copied().collect())
    }

    #[must_use]
    pub fn difference(&self, other: &CpuSet) -> CpuSet {
        CpuSet(self.0.difference(&other.0).copied().collect())
    }
}

impl FromIterator<usize> for CpuSet {
    fn from_iter<I: IntoIterator<Item = usize>>(ids: I) -> CpuSet {
        CpuSet(ids.into_iter().collect())
    }
}

impl<const N: usize> From<[usize; N]> for CpuSet {
    fn from(ids: [usize; N]) -> CpuSet {
        ids.into_iter().collect()
    }
}

impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ids = self.0.iter().copied().peekable();
        let mut separator = "";
        while let Some(first) = ids.next() {
            let mut last = first;
            while let Some(next) = ids.next_if_eq(&(last + 1)) {
                last = next;
            }
            match first == last {
                true => write!(f, "{separator}{first}")?,
                false => write!(f, "{separator}{first}-{last}")?,
            }
            separator = ",";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_and_written() {
        for text in ["", "5", "1-5", "1-2,4,7-9", "0,2,4"] {
            assert_eq!(CpuSet::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(CpuSet::parse("3,1-2,2-3").unwrap().to_string(), "1-3");
    }

    #[test]
    fn lists_that_are_none_are_refused() {
        let refused = [
            ("asd", r#"strconv.Atoi: parsing "asd": invalid syntax"#),
            ("-1", r#"strconv.Atoi: parsing "": invalid syntax"#),
            ("1,", r#"strconv.Atoi: parsing "": invalid syntax"#),
            ("1.3", r#"strconv.Atoi: parsing "1.3": invalid syntax"#),
            ("5-2", r#"invalid range "5-2" (5 > 2)"#),
            (
                "0-99999999999999999999",
                r#"strconv.Atoi: parsing "99999999999999999999": value out of range"#,
            ),
            ("0-65536", r#"invalid range "0-65536": more than 65536 CPUs"#),
        ];
        for (text, why) in refused {
            assert_eq!(CpuSet::parse(text).unwrap_err(), why, "{text}");
        }
    }
}
