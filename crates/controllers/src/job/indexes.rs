//! Completion indexes in the compressed form of a Job's status: `0,2-5`.

use std::fmt;

use k8s_openapi::api::core::v1::Pod;

/// The annotation and label with a pod's index.
pub(crate) const COMPLETION_INDEX: &str = "batch.kubernetes.io/job-completion-index";

/// Closed intervals in order, with gaps between them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Indexes(Vec<(i32, i32)>);

impl Indexes {
    /// Reads the indexes below `completions`; intervals that cannot be read are skipped.
    pub(crate) fn parse(text: &str, completions: i32) -> Indexes {
        let mut intervals = Vec::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (Ok(first), Ok(last)) = (first.parse::<i32>(), last.parse::<i32>()) else {
                continue;
            };
            if first < 0 || first >= completions {
                continue;
            }
            intervals.push((first, last.min(completions - 1)));
        }
        Indexes::of(intervals)
    }

    pub(crate) fn from_iter(indexes: impl IntoIterator<Item = i32>) -> Indexes {
        Indexes::of(indexes.into_iter().map(|i| (i, i)).collect())
    }

    fn of(mut intervals: Vec<(i32, i32)>) -> Indexes {
        intervals.retain(|(first, last)| first <= last);
        intervals.sort_unstable();
        let mut merged: Vec<(i32, i32)> = Vec::new();
        for (first, last) in intervals {
            match merged.last_mut() {
                Some(before) if first <= before.1.saturating_add(1) => {
                    before.1 = before.1.max(last);
                }
                _ => merged.push((first, last)),
            }
        }
        Indexes(merged)
    }

    pub(crate) fn union(&self, other: &Indexes) -> Indexes {
        Indexes::of(self.0.iter().chain(&other.0).copied().collect())
    }

    pub(crate) fn total(&self) -> i32 {
        self.0.iter().map(|(first, last)| last - first + 1).sum()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn has(&self, index: i32) -> bool {
        let at = self.0.partition_point(|(_, last)| *last < index);
        self.0.get(at).is_some_and(|(first, _)| *first <= index)
    }

    /// How many indexes both have.
    pub(crate) fn common(&self, other: &Indexes) -> i32 {
        let overlap = |a: &(i32, i32), b: &(i32, i32)| (a.1.min(b.1) - a.0.max(b.0) + 1).max(0);
        let (mut mine, mut theirs, mut sum) = (0, 0, 0);
        while let (Some(a), Some(b)) = (self.0.get(mine), other.0.get(theirs)) {
            sum += overlap(a, b);
            if a.1 <= b.1 {
                mine += 1;
            }
            if b.1 <= a.1 {
                theirs += 1;
            }
        }
        sum
    }

    /// The first `count` indexes below `completions` that are not in here.
    pub(crate) fn first_missing(&self, count: usize, completions: i32) -> Vec<i32> {
        let mut missing = Vec::new();
        let mut next = 0;
        let gaps = self.0.iter().copied().chain([(completions, completions)]);
        for (first, last) in gaps {
            let room = count - missing.len();
            missing.extend((next..first.min(completions)).take(room));
            next = next.max(last.saturating_add(1));
        }
        missing
    }
}

impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (first, last)) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            match last - first {
                0 => write!(f, "{first}")?,
                1 => write!(f, "{first},{last}")?,
                _ => write!(f, "{first}-{last}")?,
            }
        }
        Ok(())
    }
}

/// The pod's completion index, if it has a sensible one.
pub(crate) fn index_of(pod: &Pod) -> Option<i32> {
    let text = pod.metadata.annotations.as_ref()?.get(COMPLETION_INDEX)?;
    text.parse::<i32>().ok().filter(|index| *index >= 0)
}
