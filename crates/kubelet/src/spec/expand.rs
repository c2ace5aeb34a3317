//! `$(NAME)` references in commands, arguments and values.

/// Replaces references that `lookup` knows; `$$` is a dollar; unknown references stay as they are.
pub(crate) fn expand(text: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        let reference = rest.strip_prefix('(').and_then(|r| r.split_once(')'));
        let Some((name, after)) = reference else {
            out.push('$');
            continue;
        };
        match lookup(name) {
            Some(value) => out.push_str(&value),
            None => out.push_str(&format!("$({name})")),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}
