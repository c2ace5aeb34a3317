//! What is wrong with an expression, and how clients are shown it: position, message, and the line
//! with a caret below (cel-go `common/errors.go`).

use std::fmt;

/// The most faults of one expression that are told.
const TOLD_MAX: usize = 100;
/// The longest line, in bytes, that is shown with a fault.
const SNIPPET_MAX: usize = 16384;

/// A place in the text: characters from its start. `None` is nowhere in particular.
pub(crate) type Place = Option<u32>;

/// The faults of one text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issues {
    text: Box<str>,
    found: Vec<(Place, String)>,
}

impl Issues {
    pub(crate) fn of(text: &str) -> Issues {
        Issues { text: text.into(), found: Vec::new() }
    }

    pub(crate) fn add(&mut self, at: Place, message: impl Into<String>) {
        self.found.push((at, message.into()));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }
}

/// Line from 1, column from 0, both in characters. The end of an empty text is before its first
/// column, as upstream has it.
fn line_and_column(text: &str, at: Place) -> (i64, i64) {
    let Some(at) = at else { return (-1, -1) };
    if text.is_empty() {
        return (1, -1);
    }
    let (mut line, mut column) = (1, 0);
    for character in text.chars().take(at as usize) {
        match character {
            '\n' => (line, column) = (line + 1, 0),
            _ => column += 1,
        }
    }
    (line, column)
}

impl fmt::Display for Issues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut told: Vec<_> = self
            .found
            .iter()
            .take(TOLD_MAX)
            .map(|(at, m)| (line_and_column(&self.text, *at), m))
            .collect();
        told.sort_by_key(|(place, _)| *place);
        for (count, ((line, column), message)) in told.iter().enumerate() {
            let separator = if count > 0 { "\n" } else { "" };
            write!(f, "{separator}ERROR: <input>:{line}:{}: {message}", column + 1)?;
            self.snippet(f, *line, *column)?;
        }
        match self.found.len().saturating_sub(TOLD_MAX) {
            0 => Ok(()),
            more => write!(f, "\n{more} more errors were truncated"),
        }
    }
}

impl Issues {
    fn snippet(&self, f: &mut fmt::Formatter<'_>, line: i64, column: i64) -> fmt::Result {
        let Some(index) = usize::try_from(line - 1).ok() else { return Ok(()) };
        let Some(text) = self.text.split('\n').nth(index) else { return Ok(()) };
        if text.len() > SNIPPET_MAX || self.text.is_empty() {
            return Ok(());
        }
        let wide = |c: char| c.len_utf8() > 1;
        let before = text.chars().take(column.max(0) as usize);
        let dots: String = before.map(|c| if wide(c) { '\u{ff0e}' } else { '.' }).collect();
        let under = text.chars().nth(column.max(0) as usize);
        let caret = if under.is_some_and(wide) { '\u{ff3e}' } else { '^' };
        write!(f, "\n | {}\n | {dots}{caret}", text.replace('\t', " "))
    }
}
