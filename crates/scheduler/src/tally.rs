//! How often each reason was given: `1 reason a, 2 reason b.`, sorted as text.

use std::borrow::Cow;

#[derive(Debug, Default)]
pub(crate) struct Tally {
    counts: Vec<(Cow<'static, str>, usize)>,
}

impl Tally {
    /// Counts each of the reasons `times` times. There are few different ones, and most are the same text
    /// in memory.
    pub(crate) fn add(&mut self, reasons: &[Cow<'static, str>], times: usize) {
        for reason in reasons {
            let same = |(known, _): &&mut (Cow<'static, str>, usize)| {
                std::ptr::eq(known.as_ptr(), reason.as_ptr()) && known.len() == reason.len()
                    || known == reason
            };
            match self.counts.iter_mut().find(same) {
                Some((_, count)) => *count += times,
                None => self.counts.push((reason.clone(), times)),
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    pub(crate) fn sentence(&self) -> String {
        let mut lines: Vec<String> =
            self.counts.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        lines.sort();
        lines.join(", ") + "."
    }
}
