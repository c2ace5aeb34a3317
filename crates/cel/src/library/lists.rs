//! Functions over lists: Kubernetes', the sets, and cel-go's extension.

use std::cmp::Ordering;

use super::{Answer, Function, add};
use crate::equal::{compare, contains, equal};
use crate::error::Error;
use crate::time::Span;
use crate::value::{List, Value};

/// The longest list that `lists.range` makes; the limit of one run's cost is reached before.
const RANGE_MAX: i64 = 10_000_000;

pub(super) fn find(name: &str) -> Option<Function> {
    Some(match name {
        "isSorted" => |args| on(args, is_sorted),
        "sum" => |args| on(args, |list| sum(list, Value::Int(0))),
        "min" => |args| on(args, |list| extreme(list, "min", Ordering::Less)),
        "max" => |args| on(args, |list| extreme(list, "max", Ordering::Greater)),
        "sets.contains" => |args| sets(args, |a, b| all_in(b, a)),
        "sets.intersects" => |args| sets(args, any_in),
        "sets.equivalent" => |args| sets(args, |a, b| Ok(all_in(b, a)? && all_in(a, b)?)),
        "slice" => slice,
        "flatten" => flatten,
        "sort" => |args| on(args, |list| Ok(Value::list(sorted(list.to_vec()?, &list.to_vec()?)?))),
        "@sortByAssociatedKeys" => |args| match args {
            [Value::List(list), Value::List(keys)] => Some(by_keys(list, keys)),
            _ => None,
        },
        "lists.range" => range,
        "reverse" => {
            |args| on(args, |list| Ok(Value::list(list.to_vec()?.into_iter().rev().collect())))
        }
        "distinct" => |args| on(args, distinct),
        _ => return None,
    })
}

fn on<'v>(args: &[Value<'v>], f: impl FnOnce(&List<'v>) -> Result<Value<'v>, Error>) -> Answer<'v> {
    match args {
        [Value::List(list)] => Some(f(list)),
        _ => None,
    }
}

fn is_sorted<'v>(list: &List<'v>) -> Result<Value<'v>, Error> {
    let items = list.to_vec()?;
    for pair in items.windows(2) {
        if compare(&pair[0], &pair[1])? == Ordering::Greater {
            return Ok(Value::Bool(false));
        }
    }
    Ok(Value::Bool(true))
}

/// The sum of a list whose items' type is known: it is of this type for an empty list, too.
pub(crate) fn typed_sum(overload: &str) -> Option<Function> {
    Some(match overload {
        "list_uint_sum_uint" => |args| on(args, |list| sum(list, Value::Uint(0))),
        "list_double_sum_double" => |args| on(args, |list| sum(list, Value::Double(0.0))),
        "list_duration_sum_duration" => |args| on(args, |list| sum(list, Value::Duration(Span(0)))),
        _ => return None,
    })
}

fn sum<'v>(list: &List<'v>, zero: Value<'v>) -> Result<Value<'v>, Error> {
    let mut items = list.iter();
    let Some(first) = items.next() else { return Ok(zero) };
    items.try_fold(first?, |total, item| add(total, item?))
}

/// The first of the smallest or greatest items.
fn extreme<'v>(list: &List<'v>, name: &str, better: Ordering) -> Result<Value<'v>, Error> {
    let mut items = list.iter();
    let first = items.next().ok_or_else(|| Error::new(format!("{name} called on empty list")))?;
    items.try_fold(first?, |best, item| {
        let item = item?;
        Ok(if compare(&item, &best)? == better { item } else { best })
    })
}

pub(super) fn index_of<'v>(args: &[Value<'v>]) -> Answer<'v> {
    let [Value::List(list), item] = args else { return None };
    let found = list.iter().position(|known| is(known, item));
    Some(Ok(Value::Int(found.map_or(-1, |at| at as i64))))
}

pub(super) fn last_index_of<'v>(args: &[Value<'v>]) -> Answer<'v> {
    let [Value::List(list), item] = args else { return None };
    let found = (0..list.len()).rev().find(|at| is(list.get(*at), item));
    Some(Ok(Value::Int(found.map_or(-1, |at| at as i64))))
}

fn is(known: Result<Value<'_>, Error>, item: &Value<'_>) -> bool {
    known.and_then(|known| equal(&known, item)).unwrap_or(false)
}

fn sets<'v>(args: &[Value<'v>], f: fn(&List<'v>, &List<'v>) -> Result<bool, Error>) -> Answer<'v> {
    match args {
        [Value::List(a), Value::List(b)] => Some(f(a, b).map(Value::Bool)),
        _ => None,
    }
}

fn all_in<'v>(items: &List<'v>, list: &List<'v>) -> Result<bool, Error> {
    for item in items.iter() {
        if !contains(list, &item?)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn any_in<'v>(a: &List<'v>, b: &List<'v>) -> Result<bool, Error> {
    for item in a.iter() {
        if contains(b, &item?).unwrap_or(false) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn slice<'v>(args: &[Value<'v>]) -> Answer<'v> {
    let [Value::List(list), Value::Int(start), Value::Int(end)] = args else { return None };
    let fault = |why: &str| Err(Error::new(format!("cannot slice({start}, {end}), {why}")));
    let (Ok(from), Ok(to)) = (usize::try_from(*start), usize::try_from(*end)) else {
        return Some(fault("negative indexes not supported"));
    };
    if from > to {
        return Some(fault("start index must be less than or equal to end index"));
    }
    if to > list.len() {
        return Some(fault(&format!("list is length {}", list.len())));
    }
    Some((from..to).map(|at| list.get(at)).collect::<Result<_, _>>().map(Value::list))
}

fn flatten<'v>(args: &[Value<'v>]) -> Answer<'v> {
    let (list, depth) = match args {
        [Value::List(list)] => (list, 1),
        [Value::List(list), Value::Int(depth)] => (list, *depth),
        _ => return None,
    };
    if depth < 0 {
        return Some(Err(Error::new("level must be non-negative")));
    }
    let mut flat = Vec::new();
    Some(flatten_into(list, depth, &mut flat).map(|()| Value::list(flat)))
}

fn flatten_into<'v>(list: &List<'v>, depth: i64, flat: &mut Vec<Value<'v>>) -> Result<(), Error> {
    for item in list.iter() {
        match item? {
            Value::List(inner) if depth > 0 => flatten_into(&inner, depth - 1, flat)?,
            other => flat.push(other),
        }
    }
    Ok(())
}

fn by_keys<'v>(list: &List<'v>, keys: &List<'v>) -> Result<Value<'v>, Error> {
    if list.len() != keys.len() {
        return Err(Error::new(format!(
            "@sortByAssociatedKeys() expected a list of the same size as the associated keys list, but got {} and {} elements respectively",
            list.len(),
            keys.len()
        )));
    }
    Ok(Value::list(sorted(list.to_vec()?, &keys.to_vec()?)?))
}

/// Items in the order of their keys, which are all of one type.
fn sorted<'v>(items: Vec<Value<'v>>, keys: &[Value<'v>]) -> Result<Vec<Value<'v>>, Error> {
    let Some(first) = keys.first() else { return Ok(items) };
    if compare(first, first).is_err() && !matches!(first, Value::Double(_)) {
        return Err(Error::new("list elements must be comparable"));
    }
    if keys.iter().any(|key| key.type_of() != first.type_of()) {
        return Err(Error::new("list elements must have the same type"));
    }
    let mut order: Vec<usize> = (0..items.len()).collect();
    order.sort_by(|a, b| compare(&keys[*a], &keys[*b]).unwrap_or(Ordering::Equal));
    Ok(order.into_iter().map(|at| items[at].clone()).collect())
}

fn range<'v>(args: &[Value<'v>]) -> Answer<'v> {
    let [Value::Int(count)] = args else { return None };
    if *count > RANGE_MAX {
        return Some(Err(Error::new("range is too long")));
    }
    Some(Ok(Value::list((0..(*count).max(0)).map(Value::Int).collect())))
}

fn distinct<'v>(list: &List<'v>) -> Result<Value<'v>, Error> {
    let mut unique: Vec<Value<'v>> = Vec::new();
    for item in list.iter() {
        let item = item?;
        if !unique.iter().any(|known| equal(&item, known).unwrap_or(false)) {
            unique.push(item);
        }
    }
    Ok(Value::list(unique))
}
