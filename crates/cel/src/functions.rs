//! Which functions there are: a table of overloads in text, one file a library, read at first use.
//! A line is `id [receiver@]name(argument, …) result`; capital letters are type variables, and a line
//! with `$` stands for one line for each type of its section.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::types::Type;

/// One signature of a function.
#[derive(Debug)]
pub(crate) struct Overload {
    pub(crate) id: Box<str>,
    pub(crate) member: bool,
    /// The receiver first, if it is a member.
    pub(crate) args: Vec<Type>,
    pub(crate) result: Type,
    /// How many type variables it has, numbered from 0.
    pub(crate) variables: u32,
}

pub(crate) type Functions = HashMap<Box<str>, Vec<Overload>>;

/// In the order in which Kubernetes adds them: it decides which overload is found first.
const TABLES: [&str; 5] = [
    include_str!("functions/standard.txt"),
    include_str!("functions/kubernetes.txt"),
    include_str!("functions/extensions.txt"),
    include_str!("functions/authorization.txt"),
    include_str!("functions/json_patch.txt"),
];

pub(crate) static FUNCTIONS: LazyLock<Functions> = LazyLock::new(|| {
    let mut functions = Functions::new();
    for line in TABLES.iter().flat_map(|table| table.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        for line in expanded(line) {
            let (name, overload) = read(&line).expect("the tables are well-formed");
            functions.entry(name).or_default().push(overload);
        }
    }
    functions
});

/// `[a b c] line with $` once for each word.
fn expanded(line: &str) -> Vec<String> {
    match line.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
        Some((words, line)) => words.split(' ').map(|word| line.replace('$', word)).collect(),
        None => vec![line.to_owned()],
    }
}

fn read(line: &str) -> Option<(Box<str>, Overload)> {
    let (id, signature) = line.split_once(' ')?;
    let open =
        signature.split('@').next().filter(|_| is_member(signature)).map_or(0, |r| r.len() + 1);
    let (receiver, rest) = signature.split_at(open);
    let paren = rest.find('(')?;
    let name = &rest[..paren];
    let mut reader = Reader { text: &rest[paren + 1..], variables: 0 };
    let mut args = Vec::new();
    let member = open > 0;
    if member {
        args.push(
            Reader { text: receiver.trim_end_matches('@'), variables: 0 }
                .ty(&mut reader.variables)?,
        );
    }
    let mut variables = reader.variables;
    while !reader.text.starts_with(')') {
        args.push(reader.ty(&mut variables)?);
        reader.text = reader.text.trim_start_matches([',', ' ']);
    }
    reader.text = reader.text[1..].trim_start();
    let result = reader.ty(&mut variables)?;
    Some((name.into(), Overload { id: id.into(), member, args, result, variables }))
}

/// A receiver is a type before an `@` that does not start the name.
fn is_member(signature: &str) -> bool {
    signature.find('@').is_some_and(|at| {
        let before = &signature[..at];
        !before.is_empty()
            && !before.ends_with('.')
            && before.matches('(').count() == before.matches(')').count()
    })
}

struct Reader<'t> {
    text: &'t str,
    variables: u32,
}

impl Reader<'_> {
    fn ty(&mut self, variables: &mut u32) -> Option<Type> {
        let end = self.text.find(['(', ')', ',', ' ']).unwrap_or(self.text.len());
        let (name, rest) = self.text.split_at(end);
        self.text = rest;
        let mut parts = Vec::new();
        if let Some(inside) = self.text.strip_prefix('(').filter(|_| is_generic(name)) {
            self.text = inside;
            while !self.text.starts_with(')') {
                parts.push(self.ty(variables)?);
                self.text = self.text.trim_start_matches([',', ' ']);
            }
            self.text = &self.text[1..];
        }
        named(name, parts, variables)
    }
}

fn is_generic(name: &str) -> bool {
    matches!(name, "list" | "map" | "optional" | "type")
}

/// The variables' letters, in the order of their numbers.
const LETTERS: &str = "ABKVT";

fn named(name: &str, parts: Vec<Type>, variables: &mut u32) -> Option<Type> {
    let mut parts = parts.into_iter();
    Some(match name {
        "dyn" => Type::Dyn,
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "duration" => Type::Duration,
        "timestamp" => Type::Timestamp,
        "list" => Type::list(parts.next()?),
        "map" => Type::map(parts.next()?, parts.next()?),
        "optional" => Type::optional(parts.next()?),
        "type" => Type::Type(parts.next().map(Into::into)),
        "ip" => Type::Opaque("net.IP".into(), [].into()),
        "cidr" => Type::Opaque("net.CIDR".into(), [].into()),
        "url" => Type::object("kubernetes.URL"),
        "quantity" => Type::object("kubernetes.Quantity"),
        "semver" => Type::object("kubernetes.Semver"),
        "format" => Type::object("kubernetes.NamedFormat"),
        "authorizer" => Type::object("kubernetes.authorization.Authorizer"),
        "pathcheck" => Type::object("kubernetes.authorization.PathCheck"),
        "groupcheck" => Type::object("kubernetes.authorization.GroupCheck"),
        "resourcecheck" => Type::object("kubernetes.authorization.ResourceCheck"),
        "decision" => Type::object("kubernetes.authorization.Decision"),
        letter => {
            let number = LETTERS.find(letter)? as u32;
            *variables = (*variables).max(number + 1);
            Type::Var(number)
        }
    })
}

/// What the names of types stand for in expressions.
pub(crate) fn type_named(name: &str) -> Option<Type> {
    Some(match name {
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "null_type" => Type::Null,
        "type" => Type::Type(None),
        "list" => Type::list(Type::Dyn),
        "map" => Type::map(Type::Dyn, Type::Dyn),
        "google.protobuf.Duration" => Type::Duration,
        "google.protobuf.Timestamp" => Type::Timestamp,
        "optional_type" => Type::Opaque("optional_type".into(), [].into()),
        "net.IP" => Type::Opaque("net.IP".into(), [].into()),
        "net.CIDR" => Type::Opaque("net.CIDR".into(), [].into()),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::FUNCTIONS;

    #[test]
    fn the_tables_are_read() {
        let ids = |name: &str| FUNCTIONS[name].iter().map(|o| &*o.id).collect::<Vec<_>>();
        assert_eq!(ids("charAt"), ["string_char_at_int"]);
        assert_eq!(ids("isGreaterThan"), ["quantity_is_greater_than", "semver_is_greater_than"]);
        assert_eq!(ids("cel.@mapInsert").len(), 2);
        assert_eq!(FUNCTIONS["_<_"].len(), 14);
        let get = &FUNCTIONS["getHours"];
        assert!(get.iter().all(|o| o.member) && get.len() == 3);
        assert_eq!(FUNCTIONS["_[_]"][1].variables, 2);
        assert!(!FUNCTIONS["@in"][0].member);
        assert!(FUNCTIONS["@sortByAssociatedKeys"][0].member);
    }
}
