//! Functions that Kubernetes adds to CEL (apiserver `pkg/cel/library`): quantities, IP addresses,
//! CIDRs, URLs, regular expressions, and sums over lists.

use std::cmp::Ordering;
use std::net::IpAddr;
use std::sync::Arc;

use api::quantity::Quantity;
use cel::extractors::This;
use cel::objects::Opaque;
use cel::{Context, ExecutionError, Value};

type Answer<T> = Result<T, ExecutionError>;

/// A `resource.Quantity` in a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Amount(Quantity);

impl Opaque for Amount {
    fn runtime_type_name(&self) -> &str {
        "kubernetes.Quantity"
    }
}

/// Makes the functions known. The library's own conflicts cannot happen: names differ.
pub(crate) fn add_to(context: &mut Context<'_, '_>) {
    let added = [
        context.add_function("quantity", quantity),
        context.add_function("isQuantity", |text: Arc<String>| Quantity::parse(&text).is_ok()),
        context.add_function("isGreaterThan", |This(a): This<Value>, b: Value| {
            Ok::<_, ExecutionError>(compare(&a, &b)? == Ordering::Greater)
        }),
        context.add_function("isLessThan", |This(a): This<Value>, b: Value| {
            Ok::<_, ExecutionError>(compare(&a, &b)? == Ordering::Less)
        }),
        context.add_function("compareTo", |This(a): This<Value>, b: Value| {
            Ok::<_, ExecutionError>(compare(&a, &b)? as i64)
        }),
        context.add_function("isIP", |text: Arc<String>| text.parse::<IpAddr>().is_ok()),
        context.add_function("isCIDR", |text: Arc<String>| crate::format::fits("cidr", &text)),
        context.add_function("isURL", |text: Arc<String>| is_url(&text)),
        context.add_function("find", |This(text): This<Arc<String>>, pattern: Arc<String>| {
            let found = regex_of(&pattern)?.find(&text).map_or("", |m| m.as_str());
            Ok::<_, ExecutionError>(Value::String(Arc::new(found.to_owned())))
        }),
        context.add_function("findAll", find_all),
        context.add_function("isSorted", is_sorted),
        context.add_function("sum", sum),
    ];
    debug_assert!(added.iter().all(Result::is_ok), "a function's name is taken: {added:?}");
}

fn failed(function: &str, why: impl ToString) -> ExecutionError {
    ExecutionError::function_error(function, why)
}

fn quantity(text: Arc<String>) -> Answer<Value> {
    let parsed = Quantity::parse(&text).map_err(|e| failed("quantity", e))?;
    Ok(Value::Opaque(Arc::new(Amount(parsed))))
}

fn compare(a: &Value, b: &Value) -> Answer<Ordering> {
    let amount = |value: &Value| match value {
        Value::Opaque(opaque) => opaque.downcast_ref::<Amount>().map(|a| a.0),
        _ => None,
    };
    match (amount(a), amount(b)) {
        (Some(a), Some(b)) => {
            a.partial_cmp(&b).ok_or_else(|| failed("compareTo", "not comparable"))
        }
        _ => Err(failed("compareTo", "no such overload")),
    }
}

/// Absolute, as Go's `url.ParseRequestURI` takes it.
fn is_url(text: &str) -> bool {
    let scheme = |s: &str| {
        s.starts_with(|c: char| c.is_ascii_alphabetic())
            && s.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    };
    let printable = !text.chars().any(|c| c.is_control() || c == ' ');
    printable
        && (text.starts_with('/')
            || text.split_once("://").is_some_and(|(s, rest)| scheme(s) && !rest.is_empty()))
}

fn regex_of(pattern: &str) -> Answer<regex::Regex> {
    regex::Regex::new(pattern).map_err(|e| failed("find", e))
}

fn find_all(This(text): This<Arc<String>>, pattern: Arc<String>) -> Answer<Value> {
    let found = regex_of(&pattern)?;
    let all = found.find_iter(&text).map(|m| Value::String(Arc::new(m.as_str().to_owned())));
    Ok(Value::List(Arc::new(all.collect())))
}

fn is_sorted(This(list): This<Arc<Vec<Value>>>) -> Answer<bool> {
    for pair in list.windows(2) {
        match pair[0].partial_cmp(&pair[1]) {
            Some(Ordering::Greater) => return Ok(false),
            Some(_) => {}
            None => return Err(failed("isSorted", "no such overload")),
        }
    }
    Ok(true)
}

fn sum(This(list): This<Arc<Vec<Value>>>) -> Answer<Value> {
    let mut total = Value::Int(0);
    for item in list.iter() {
        total = match (total, item) {
            (Value::Int(a), Value::Int(b)) => {
                Value::Int(a.checked_add(*b).ok_or_else(|| failed("sum", "integer overflow"))?)
            }
            (Value::Int(a), Value::Float(b)) => Value::Float(a as f64 + b),
            (Value::Float(a), Value::Float(b)) => Value::Float(a + b),
            _ => return Err(failed("sum", "no such overload")),
        };
    }
    Ok(total)
}
