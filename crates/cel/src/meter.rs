//! What calls cost while an expression runs (apiserver `pkg/cel/library/cost.go`, cel-go
//! `interpreter/runtimecost.go`). Everything else costs what [`crate::eval`] says where it does it.

use crate::estimate::{LIST_COST, PER_CHARACTER, PER_PATTERN_CHARACTER, Range, calls};
use crate::value::{List, Map, Value};

/// How a call's cost is found from its arguments and result.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Price {
    Fixed(u64),
    /// Looking at the first argument, so much a character, rounded up.
    Read(f64),
    /// Building the result, so much a character, rounded up.
    Build(f64),
    /// Every part of the first argument.
    Traverse,
    /// The second argument's items.
    Search,
    /// The shorter side of a comparison.
    Shorter,
    /// Both sides of a concatenation.
    Both,
    /// A pattern over a text.
    Pattern,
    /// A text within a text.
    Within,
    Selector,
    /// Of addresses: whether the range is masked first, and the other one read.
    Contains {
        masked: bool,
        parsed: bool,
    },
    Format,
    /// A new list as long as the result.
    ListOfResult,
    /// A new list of so many items as the first argument says.
    ListOfCount,
    /// A new list of so many times the first argument; the depth is the second argument.
    Flatten,
    /// Each item of this argument with each.
    SelfCompare(usize),
    /// Each item of one list with each of the other, so many times.
    Product(f64),
}

/// Kubernetes' accessors, each a step.
pub(crate) fn is_nominal(function: &str) -> bool {
    matches!(
        function,
        "serviceAccount"
            | "path"
            | "group"
            | "resource"
            | "subresource"
            | "namespace"
            | "name"
            | "allowed"
            | "reason"
            | "error"
            | "errored"
            | "masked"
            | "prefixLength"
            | "family"
            | "isUnspecified"
            | "isLoopback"
            | "isLinkLocalMulticast"
            | "isLinkLocalUnicast"
            | "isGlobalUnicast"
            | "format.named"
            | "sign"
            | "asInteger"
            | "isInteger"
            | "asApproximateFloat"
            | "isGreaterThan"
            | "isLessThan"
            | "compareTo"
            | "add"
            | "sub"
            | "major"
            | "minor"
            | "patch"
            | "getScheme"
            | "getHostname"
            | "getHost"
            | "getPort"
            | "getEscapedPath"
            | "getQuery"
    )
}

/// The price of a function's call; the overload is known if there is only one it can be.
pub(crate) fn price(function: &str, overload: Option<&str>) -> Price {
    let overload = overload.unwrap_or("");
    extension(overload)
        .unwrap_or_else(|| kubernetes(function, overload).unwrap_or(standard(overload)))
}

fn extension(overload: &str) -> Option<Price> {
    Some(match overload {
        "list_slice" | "list_reverse" => Price::ListOfResult,
        "lists_range" => Price::ListOfCount,
        "list_flatten" | "list_flatten_int" => Price::Flatten,
        "list_distinct" => Price::SelfCompare(0),
        "list_sets_contains_list" | "list_sets_intersects_list" => Price::Product(1.0),
        "list_sets_equivalent_list" => Price::Product(2.0),
        _ if overload.starts_with("list_") && overload.ends_with("_sort") => Price::SelfCompare(0),
        _ if overload.ends_with("_sortByAssociatedKeys") => Price::SelfCompare(1),
        _ => return None,
    })
}

fn kubernetes(function: &str, overload: &str) -> Option<Price> {
    Some(match function {
        "check" => Price::Fixed(calls::CHECK_COST),
        "fieldSelector" | "labelSelector" => Price::Selector,
        "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" => Price::Traverse,
        "ip" if overload == "cidr_ip" => Price::Fixed(1),
        "url"
        | "jsonpatch.escapeKey"
        | "lowerAscii"
        | "upperAscii"
        | "substring"
        | "trim"
        | "cidr"
        | "isIP"
        | "isCIDR"
        | "ip"
        | "quantity"
        | "isQuantity"
        | "semver"
        | "isSemver" => Price::Read(PER_CHARACTER),
        "replace" | "split" | "ip.isCanonical" => Price::Read(2.0 * PER_CHARACTER),
        "join" => Price::Build(2.0 * PER_CHARACTER),
        "find" | "findAll" => Price::Pattern,
        "containsIP" => Price::Contains { masked: false, parsed: overload.ends_with("_string") },
        "containsCIDR" => Price::Contains { masked: true, parsed: overload.ends_with("_string") },
        "validate" => Price::Format,
        name if is_nominal(name) => Price::Fixed(1),
        _ => return None,
    })
}

fn standard(overload: &str) -> Price {
    match overload {
        "starts_with_string" | "ends_with_string" => Price::Read(PER_CHARACTER),
        "string_to_bytes" | "bytes_to_string" | "strings_quote" | "string_format" => {
            Price::Read(PER_CHARACTER)
        }
        "in_list" => Price::Search,
        "add_string" | "add_bytes" => Price::Both,
        "matches_string" => Price::Pattern,
        "contains_string" => Price::Within,
        _ if calls::compares_sizes(overload) => Price::Shorter,
        _ => Price::Fixed(1),
    }
}

/// Rounded up, as upstream computes it: in floating point.
fn read(size: u64, factor: f64) -> u64 {
    (size as f64 * factor).ceil() as u64
}

impl Price {
    /// Whether the result must be known.
    pub(crate) fn needs_result(self) -> bool {
        matches!(self, Price::Build(_) | Price::ListOfResult)
    }

    pub(crate) fn of(self, args: &[Value<'_>], result: &Value<'_>) -> u64 {
        let size = |at: usize| args.get(at).map_or(1, Value::cost_size);
        match self {
            Price::Fixed(cost) => cost,
            Price::Read(factor) => read(size(0), factor),
            Price::Build(factor) => read(result.cost_size(), factor),
            Price::Traverse => args.first().map_or(0, traverse),
            Price::Search => size(1),
            Price::Shorter => shorter(args),
            Price::Both => read(size(0) + size(1), PER_CHARACTER),
            Price::Pattern => {
                read(size(0) + 1, PER_CHARACTER) * read(size(1), PER_PATTERN_CHARACTER)
            }
            Price::Within => read(size(0), PER_CHARACTER) * read(size(1), PER_CHARACTER),
            Price::Selector => calls::selector(Range::fixed(size(1))).max,
            Price::Contains { masked, parsed } => {
                let mask = if masked { read(size(0), PER_CHARACTER) + 1 } else { 0 };
                let other = if parsed { read(size(1), PER_CHARACTER) } else { 0 };
                read(2 * size(0), PER_CHARACTER) + mask + other
            }
            Price::Format => match args.first() {
                Some(Value::Format(format)) => {
                    let pattern = read(format.pattern_size, PER_PATTERN_CHARACTER);
                    read(size(1) + 1, PER_CHARACTER) * pattern
                }
                _ => 1,
            },
            Price::ListOfResult => list_of(result.cost_size() as f64),
            Price::ListOfCount => match args.first() {
                Some(Value::Int(count)) => list_of((*count).max(0) as f64),
                _ => list_of(1.0),
            },
            Price::Flatten => {
                let depth = match args.get(1) {
                    Some(Value::Int(depth)) => *depth as f64,
                    _ => 1.0,
                };
                list_of(size(0) as f64 * depth)
            }
            Price::SelfCompare(at) => args.get(at).map_or(0, self_compare),
            Price::Product(factor) => 1 + (size(0).saturating_mul(size(1)) as f64 * factor) as u64,
        }
    }
}

/// A call that makes a list.
fn list_of(size: f64) -> u64 {
    (size as u64).saturating_add(1 + LIST_COST)
}

fn shorter(args: &[Value<'_>]) -> u64 {
    let [left, right] = args else { return 1 };
    if left.is_opaque() {
        return 1;
    }
    let size = |value: &Value<'_>| match value {
        Value::Optional(Some(inner)) => inner.cost_size(),
        other => other.cost_size(),
    };
    read(size(left).min(size(right)), PER_CHARACTER)
}

fn self_compare(list: &Value<'_>) -> u64 {
    let Value::List(list) = list else { return 1 };
    let size = list.len() as u64;
    let is_text = size > 0 && matches!(list.get(0), Ok(Value::String(_) | Value::Bytes(_)));
    let factor = if is_text { 2.0 + PER_CHARACTER } else { 2.0 };
    list_of(size.saturating_mul(size) as f64 * factor)
}

/// Looking at every part of a value; text is not rounded up here.
fn traverse(value: &Value<'_>) -> u64 {
    match value {
        Value::String(text) => (text.len() as f64 * PER_CHARACTER) as u64,
        Value::Bytes(bytes) => (bytes.len() as f64 * PER_CHARACTER) as u64,
        Value::List(list) => traverse_list(list),
        Value::Map(map) => traverse_map(map),
        _ => 1,
    }
}

fn traverse_list(list: &List<'_>) -> u64 {
    list.iter().map(|item| item.map_or(1, |item| traverse(&item))).sum()
}

fn traverse_map(map: &Map<'_>) -> u64 {
    let entries = map.entries().into_iter();
    entries.map(|(key, value)| traverse(&key) + value.map_or(1, |value| traverse(&value))).sum()
}
