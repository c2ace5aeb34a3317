//! Prometheus' text form.

use std::fmt::Write as _;

/// A family of series of one name.
pub(super) struct Family {
    name: &'static str,
    head: String,
    lines: String,
}

/// A label's value, with what may not stand in it escaped.
fn escaped(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
    out
}

impl Family {
    pub(super) fn new(name: &'static str, kind: &str, help: &str) -> Family {
        let head = format!("# HELP {name} {help}\n# TYPE {name} {kind}\n");
        Family { name, head, lines: String::new() }
    }

    /// One value; `at` is its time in milliseconds.
    pub(super) fn put(&mut self, labels: &[(&str, &str)], value: f64, at: Option<i64>) {
        self.put_as("", labels, value, at);
    }

    /// One value of a histogram's part: `_bucket`, `_sum`, `_count`.
    pub(super) fn put_as(
        &mut self,
        suffix: &str,
        labels: &[(&str, &str)],
        value: f64,
        at: Option<i64>,
    ) {
        let quoted = labels.iter().map(|(k, v)| format!("{k}=\"{}\"", escaped(v)));
        let labels = quoted.collect::<Vec<_>>().join(",");
        let braces = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        let at = at.map(|at| format!(" {at}")).unwrap_or_default();
        let line = writeln!(self.lines, "{}{suffix}{braces} {value}{at}", self.name);
        debug_assert!(line.is_ok(), "a string takes every write");
    }

    /// Nothing when it has no values.
    pub(super) fn text(self) -> String {
        if self.lines.is_empty() { String::new() } else { self.head + &self.lines }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_escaped_and_empty_families_left_out() {
        let mut family = Family::new("m", "gauge", "Help.");
        family.put(&[("a", "x\"\\\ny")], 1.5, Some(7));
        let text = "# HELP m Help.\n# TYPE m gauge\nm{a=\"x\\\"\\\\\\ny\"} 1.5 7\n";
        assert_eq!(family.text(), text);
        assert_eq!(Family::new("n", "gauge", "Help.").text(), "");
    }
}
