//! `$(NAME)` references in commands, arguments and values.
//!
//! A value may refer to others that refer to others: thirty lines double a text to a GiB. What the
//! kernel would not take is refused while it grows.

/// The longest argument or variable that a program can be started with (`MAX_ARG_STRLEN`).
pub(crate) const STRING_MAX: usize = 128 << 10;

/// A text outgrew [`STRING_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooLong;

/// Replaces references that `lookup` knows; `$$` is a dollar; unknown references stay as they are.
pub(crate) fn expand(
    text: &str,
    lookup: impl Fn(&str) -> Option<String>,
) -> Result<String, TooLong> {
    let mut out = String::new();
    let mut add = |part: &str| {
        if out.len() + part.len() > STRING_MAX {
            return Err(TooLong);
        }
        out.push_str(part);
        Ok(())
    };
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        add(&rest[..at])?;
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            add("$")?;
            rest = after;
            continue;
        }
        let reference = rest.strip_prefix('(').and_then(|r| r.split_once(')'));
        let Some((name, after)) = reference else {
            add("$")?;
            continue;
        };
        match lookup(name) {
            Some(value) => add(&value)?,
            None => add(&format!("$({name})"))?,
        }
        rest = after;
    }
    add(rest)?;
    Ok(out)
}
