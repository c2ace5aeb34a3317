//! Prometheus' text form, as far as `/metrics/resource` needs it.

/// One line: a series with its value and, where it is told, its time in milliseconds.
#[derive(Debug, PartialEq)]
pub(crate) struct Line<'t> {
    pub(crate) name: &'t str,
    labels: &'t str,
    pub(crate) value: f64,
    pub(crate) at: Option<i64>,
}

impl<'t> Line<'t> {
    /// Comments and blank lines are none; what cannot be read is an error.
    pub(crate) fn read(line: &'t str) -> Result<Option<Line<'t>>, String> {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            return Ok(None);
        }
        let wrong = || format!("not a metric: {:?}", line.chars().take(100).collect::<String>());
        let (series, rest) = match line.find('{') {
            Some(open) => {
                let close = end_of_labels(&line[open..]).ok_or_else(wrong)? + open;
                ((&line[..open], &line[open + 1..close]), &line[close + 1..])
            }
            None => {
                let (name, rest) = line.split_once(' ').ok_or_else(wrong)?;
                ((name, ""), rest)
            }
        };
        let mut parts = rest.split_ascii_whitespace();
        let value = parts.next().and_then(|v| v.parse().ok()).ok_or_else(wrong)?;
        let at = parts.next().map(|at| at.parse().map_err(|_| wrong())).transpose()?;
        Ok(Some(Line { name: series.0, labels: series.1, value, at }))
    }

    /// The value of a label. Names of containers, pods and namespaces have nothing that is escaped.
    pub(crate) fn label(&self, name: &str) -> Option<&'t str> {
        let mut rest = self.labels;
        loop {
            let (key, after) = rest.split_once("=\"")?;
            let (value, next) = after.split_once('"')?;
            if key.trim_start_matches([',', ' ']) == name {
                return Some(value);
            }
            rest = next;
        }
    }
}

/// Where the closing brace is; braces in quotes do not count.
fn end_of_labels(text: &str) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'}' if !quoted => return Some(at),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read() {
        let text = r#"x_total{container="a}b",namespace="n", pod="p"} 1.5e3 1700000000123"#;
        let line = Line::read(text).expect("read").expect("a line");
        assert_eq!((line.name, line.value, line.at), ("x_total", 1500.0, Some(1_700_000_000_123)));
        assert_eq!(line.label("container"), Some("a}b"));
        assert_eq!(line.label("pod"), Some("p"));
        assert_eq!(line.label("none"), None);
        let line = Line::read("up 1").expect("read").expect("a line");
        assert_eq!((line.name, line.value, line.at), ("up", 1.0, None));
        for nothing in ["", "  ", "# HELP x y"] {
            assert_eq!(Line::read(nothing), Ok(None));
        }
        for wrong in ["x", "x{", "x{a=\"b\"}", "x y", "x 1 soon", "<html>"] {
            assert!(Line::read(wrong).is_err(), "{wrong}");
        }
    }
}
