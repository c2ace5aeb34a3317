//! Files of environment variables that a pod's own containers wrote: a strict part of the shell's syntax.
//!
//! `NAME='value'` and nothing else: no expansion, no escapes, values over several lines, comments. A file
//! that breaks the syntax anywhere before the variable is refused as a whole.

/// Longest line (upstream's reader takes no longer ones).
const LINE_MAX: usize = 64 << 10;

/// The value of `key`; `None` when the file does not have it, or has nothing for it.
pub(crate) fn value(content: &[u8], key: &str) -> Result<Option<Vec<u8>>, String> {
    let found = search(content, key.as_bytes())?;
    Ok(found.filter(|value| !value.is_empty()))
}

fn blank(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

fn trim_start(text: &[u8]) -> &[u8] {
    &text[text.iter().take_while(|b| blank(b)).count()..]
}

fn search(content: &[u8], key: &[u8]) -> Result<Option<Vec<u8>>, String> {
    let content = content.strip_suffix(b"\n").unwrap_or(content);
    let mut lines =
        (1..).zip(content.split(|b| *b == b'\n').map(|l| l.strip_suffix(b"\r").unwrap_or(l)));
    while let Some((number, line)) = lines.next() {
        let fail =
            |why: &str| Err(format!("invalid environment variable format at line {number}: {why}"));
        if line.len() > LINE_MAX {
            return Err("bufio.Scanner: token too long".into());
        }
        let line = trim_start(line);
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let Some(at) = line.iter().position(|b| *b == b'=') else { return fail("missing '='") };
        let (name, rest) = (&line[..at], &line[at + 1..]);
        if name.iter().all(blank) {
            return fail("empty variable name");
        }
        if name.last().is_some_and(blank) {
            return fail("whitespace before '=' is not allowed");
        }
        // As in a shell, the variable is empty then.
        if rest.first().is_some_and(blank) {
            if name == key {
                return Ok(None);
            }
            continue;
        }
        let Some(mut rest) = rest.strip_prefix(b"'") else {
            return fail("value must be enclosed in single quotes");
        };
        let mut value = Vec::new();
        let mut last = number;
        let after = loop {
            if let Some(end) = rest.iter().position(|b| *b == b'\'') {
                value.extend_from_slice(&rest[..end]);
                break trim_start(&rest[end + 1..]);
            }
            value.extend_from_slice(rest);
            value.push(b'\n');
            let Some((number_of_next, next)) = lines.next() else {
                return Err(format!(
                    "invalid environment variable format starting at line {number}: unclosed single quote"
                ));
            };
            (last, rest) = (number_of_next, next);
        };
        if !after.is_empty() && !after.starts_with(b"#") {
            return Err(format!(
                "invalid environment variable format at line {last}: unexpected content after closing quote"
            ));
        }
        if name == key {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(content: &str, key: &str) -> Result<Option<String>, String> {
        value(content.as_bytes(), key).map(|v| v.map(|v| String::from_utf8(v).unwrap()))
    }

    #[test]
    fn values_stand_in_quotes_and_may_have_several_lines() {
        let file = "# made\n\n  A='1'\nB='blue green' # why\r\nC='x\ny'\nD= 'no'\nE=''\n";
        for (key, value) in [("A", "1"), ("B", "blue green"), ("C", "x\ny")] {
            assert_eq!(get(file, key), Ok(Some(value.to_owned())));
        }
        for key in ["D", "E", "F"] {
            assert_eq!(get(file, key), Ok(None), "{key}");
        }
    }

    #[test]
    fn a_file_that_breaks_the_syntax_is_refused() {
        let at = |line: usize, why: &str| {
            Err(format!("invalid environment variable format at line {line}: {why}"))
        };
        assert_eq!(get("A", "A"), at(1, "missing '='"));
        assert_eq!(get("\n=1", "A"), at(2, "empty variable name"));
        assert_eq!(get("A ='1'", "A"), at(1, "whitespace before '=' is not allowed"));
        assert_eq!(get("A=1", "A"), at(1, "value must be enclosed in single quotes"));
        assert_eq!(get("A='1\n2' 3", "A"), at(2, "unexpected content after closing quote"));
        let open = "invalid environment variable format starting at line 1: unclosed single quote";
        assert_eq!(get("A='1\n2", "A"), Err(open.into()));
        let long = format!("A='{}'", "x".repeat(LINE_MAX));
        assert!(get(&long, "A").is_err());
        // What comes after the variable does not matter.
        assert_eq!(get("A='1'\nrubbish", "A"), Ok(Some("1".into())));
    }
}
