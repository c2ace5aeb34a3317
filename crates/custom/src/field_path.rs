//! `fieldPath` of a rule: fields and entries below its place, `.spec.size` or `.labels['a.b']`
//! (apiextensions `schema/cel/validation.go`, `ValidFieldPath`).

use crate::node::Node;

/// One step down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Field(Box<str>),
    Key(Box<str>),
}

/// The steps, if the schema has such a path.
pub(crate) fn parse(path: &str, node: &Node) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    let (mut rest, mut node) = (path, node);
    while !rest.is_empty() {
        let (name, after) = next(rest)?;
        let step;
        (step, node) = down(node, name)?;
        steps.push(step);
        rest = after;
    }
    Some(steps)
}

/// The first step's name, and what follows it.
fn next(path: &str) -> Option<(String, &str)> {
    if let Some(rest) = path.strip_prefix('.') {
        let end = rest.find(['.', '[', ']']).unwrap_or(rest.len());
        return (end > 0).then(|| (rest[..end].to_owned(), &rest[end..]));
    }
    quoted(path.strip_prefix("['")?)
}

/// A name up to `']`, its escapes resolved.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '\'' => return Some((name, text[at + 1..].strip_prefix(']')?)),
            '\\' => name.push(match characters.next()?.1 {
                'a' => '\u{7}',
                'b' => '\u{8}',
                'f' => '\u{c}',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'v' => '\u{b}',
                same @ ('\'' | '\\') => same,
                _ => return None,
            }),
            other => name.push(other),
        }
    }
    None
}

fn down(node: &Node, name: String) -> Option<(Step, &Node)> {
    if node.properties.is_empty() {
        return Some((Step::Key(name.into()), node.additional.as_deref()?));
    }
    let below = node.properties.get(&*name)?;
    Some((Step::Field(name.into()), below))
}
