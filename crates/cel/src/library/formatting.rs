//! `string.format`: clauses as in C, numbers with English separators (cel-go `ext/formatting.go`).

use std::fmt::Write as _;

use super::number_text;
use crate::error::Error;
use crate::types::Type;
use crate::value::{List, Map, Value};

/// Digits behind the point that are shown unless others are asked for.
const PRECISION: usize = 6;
/// The most digits behind the point that are shown; what is asked for beyond is zeros in any case.
const PRECISION_MAX: usize = 1_000;

/// What a clause asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clause {
    String,
    Decimal,
    Fixed(usize),
    Scientific,
    Binary,
    Hex { upper: bool },
    Octal,
}

impl Clause {
    /// Whether values of a type can be shown so. `deep` types' parts are asked for apart.
    pub(crate) fn takes(self, ty: &Type) -> bool {
        use Type::{Bool, Bytes, Double, Duration, Int, List, Map, Null, String, Timestamp, Uint};
        match self {
            Clause::String => matches!(
                ty,
                List(_)
                    | Map(..)
                    | Int
                    | Uint
                    | Double
                    | Bool
                    | String
                    | Timestamp
                    | Bytes
                    | Duration
                    | Type::Type(_)
                    | Null
            ),
            Clause::Decimal | Clause::Octal => matches!(ty, Int | Uint),
            Clause::Fixed(_) | Clause::Scientific => matches!(ty, Double | String),
            Clause::Binary => matches!(ty, Int | Uint | Bool),
            Clause::Hex { .. } => matches!(ty, Int | Uint | String | Bytes),
        }
    }

    /// Why a type cannot be shown so.
    pub(crate) fn refusal(self, ty: &str) -> String {
        let rule = match self {
            Clause::String => {
                "string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, durations, and timestamps"
            }
            Clause::Decimal => "decimal clause can only be used on integers",
            Clause::Fixed(_) => "fixed-point clause can only be used on doubles",
            Clause::Scientific => "scientific clause can only be used on doubles",
            Clause::Binary => "only integers and bools can be formatted as binary",
            Clause::Hex { .. } => {
                "only integers, byte buffers, and strings can be formatted as hex"
            }
            Clause::Octal => "octal clause can only be used on integers",
        };
        format!("{rule}, was given {ty}")
    }
}

/// Walks a format of so many arguments; `show` is asked for each argument's text.
pub(crate) fn interpolate(
    format: &str,
    count: usize,
    show: &mut dyn FnMut(usize, Clause) -> Result<String, String>,
) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = format;
    let mut argument = 0;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            out.push('%');
            rest = after;
            continue;
        }
        if argument >= count {
            return Err(format!("index {argument} out of range"));
        }
        if rest.is_empty() {
            return Err("unexpected end of string".to_owned());
        }
        let (clause, after) =
            clause(rest).map_err(|fault| format!("could not parse formatting clause: {fault}"))?;
        let text = show(argument, clause);
        out.push_str(&text.map_err(|fault| format!("error during formatting: {fault}"))?);
        rest = after;
        argument += 1;
    }
    out.push_str(rest);
    Ok(out)
}

fn clause(rest: &str) -> Result<(Clause, &str), String> {
    let (precision, rest) =
        precision(rest).map_err(|e| format!("error while parsing precision: {e}"))?;
    let mut characters = rest.chars();
    let letter = characters.next().unwrap_or(' ');
    let clause = match letter {
        's' => Clause::String,
        'd' => Clause::Decimal,
        'f' => Clause::Fixed(precision.unwrap_or(PRECISION)),
        'e' => Clause::Scientific,
        'b' => Clause::Binary,
        'x' | 'X' => Clause::Hex { upper: letter == 'X' },
        'o' => Clause::Octal,
        other => return Err(format!("unrecognized formatting clause \"{other}\"")),
    };
    Ok((clause, characters.as_str()))
}

fn precision(rest: &str) -> Result<(Option<usize>, &str), String> {
    let Some(after) = rest.strip_prefix('.') else { return Ok((None, rest)) };
    let end = after.find(|c: char| !c.is_ascii_digit());
    let Some(end) = end else { return Err("could not find end of precision specifier".to_owned()) };
    let digits = &after[..end];
    let number = digits.parse::<usize>().map_err(|_| {
        format!("error while converting precision to integer: strconv.Atoi: parsing {digits:?}: invalid syntax")
    })?;
    Ok((Some(number.min(PRECISION_MAX)), &after[end..]))
}

pub(super) fn format(format: &str, args: &List<'_>) -> Result<String, Error> {
    let mut show = |at: usize, clause: Clause| {
        let value = args.get(at).map_err(|e| e.to_string())?;
        shown(&value, clause).ok_or_else(|| clause.refusal(value.type_of().name()))
    };
    interpolate(format, args.len(), &mut show).map_err(Error::new)
}

fn shown(value: &Value<'_>, clause: Clause) -> Option<String> {
    Some(match (clause, value) {
        (Clause::String, value) => text(value)?,
        (Clause::Decimal, Value::Int(n)) => n.to_string(),
        (Clause::Decimal, Value::Uint(n)) => n.to_string(),
        (Clause::Fixed(precision), value) => fixed(real(value)?, precision),
        (Clause::Scientific, value) => scientific(real(value)?),
        (Clause::Binary, Value::Bool(b)) => u8::from(*b).to_string(),
        (Clause::Hex { upper }, Value::String(text)) => hex(text.as_bytes(), upper),
        (Clause::Hex { upper }, Value::Bytes(bytes)) => hex(bytes, upper),
        (clause, Value::Int(n)) => {
            let sign = if *n < 0 { "-" } else { "" };
            format!("{sign}{}", radix(n.unsigned_abs(), clause)?)
        }
        (clause, Value::Uint(n)) => radix(*n, clause)?,
        _ => return None,
    })
}

fn radix(n: u64, clause: Clause) -> Option<String> {
    Some(match clause {
        Clause::Binary => format!("{n:b}"),
        Clause::Octal => format!("{n:o}"),
        Clause::Hex { upper: false } => format!("{n:x}"),
        Clause::Hex { upper: true } => format!("{n:X}"),
        _ => return None,
    })
}

fn hex(bytes: &[u8], upper: bool) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        // Writing to a string does not fail.
        let _ = if upper { write!(out, "{byte:02X}") } else { write!(out, "{byte:02x}") };
        out
    })
}

fn real(value: &Value<'_>) -> Option<f64> {
    match value {
        Value::Double(n) => Some(*n),
        Value::String(text) => match &**text {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            _ => None,
        },
        _ => None,
    }
}

/// `NaN` and infinities as English prints them.
fn odd(n: f64) -> Option<String> {
    match n {
        n if n.is_nan() => Some("NaN".to_owned()),
        f64::INFINITY => Some("∞".to_owned()),
        f64::NEG_INFINITY => Some("-∞".to_owned()),
        _ => None,
    }
}

/// With commas between thousands.
fn fixed(n: f64, precision: usize) -> String {
    if let Some(text) = odd(n) {
        return text;
    }
    let text = format!("{:.precision$}", n.abs());
    let (whole, fraction) = text.split_once('.').map_or((&*text, None), |(w, f)| (w, Some(f)));
    let mut out = String::from(if n.is_sign_negative() { "-" } else { "" });
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    if let Some(fraction) = fraction {
        out.push('.');
        out.push_str(fraction);
    }
    out
}

/// `1.052033×10⁰³`; the precision asked for is not heeded, as in upstream.
fn scientific(n: f64) -> String {
    if let Some(text) = odd(n) {
        return text;
    }
    let text = format!("{n:.PRECISION$e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = exponent.strip_prefix('-').map_or(("", exponent), |e| ("⁻", e));
    const RAISED: [char; 10] = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];
    let raised: String = format!("{exponent:0>2}")
        .bytes()
        .map(|digit| RAISED[usize::from(digit - b'0') % 10])
        .collect();
    format!("{digits}×10{sign}{raised}")
}

/// A value by `%s`.
fn text(value: &Value<'_>) -> Option<String> {
    Some(match value {
        Value::String(text) => text.to_string(),
        Value::Bytes(bytes) => std::str::from_utf8(bytes).ok()?.to_owned(),
        Value::Int(n) => n.to_string(),
        Value::Uint(n) => n.to_string(),
        Value::Double(n) => number_text(*n),
        Value::Bool(b) => b.to_string(),
        Value::Null => "null".to_owned(),
        Value::Duration(span) => span.to_string(),
        Value::Timestamp(time) => time.to_string(),
        Value::Type(ty) => ty.name().to_owned(),
        Value::List(list) => list_text(list)?,
        Value::Map(map) => map_text(map)?,
        _ => return None,
    })
}

/// A value within a list or map.
fn nested(value: &Value<'_>) -> Option<String> {
    Some(match value {
        Value::String(text) => format!("{:?}", &**text),
        Value::Bytes(bytes) => format!("b{:?}", std::str::from_utf8(bytes).ok()?),
        Value::Duration(span) => format!("duration(\"{span}\")"),
        Value::Timestamp(time) => format!("timestamp(\"{time}\")"),
        Value::Double(n) if n.is_nan() => "\"NaN\"".to_owned(),
        Value::Double(n) if n.is_infinite() => format!("\"{}\"", number_text(*n)),
        Value::Double(n) => format!("{n:.PRECISION$}"),
        other => text(other)?,
    })
}

fn list_text(list: &List<'_>) -> Option<String> {
    let items = list.iter().map(|item| nested(&item.ok()?));
    Some(format!("[{}]", items.collect::<Option<Vec<_>>>()?.join(", ")))
}

fn map_text(map: &Map<'_>) -> Option<String> {
    let pairs = map.entries().into_iter().map(|(key, value)| {
        let key = match key {
            Value::String(_) | Value::Bool(_) | Value::Int(_) | Value::Uint(_) => nested(&key)?,
            _ => return None,
        };
        Some((key, nested(&value.ok()?)?))
    });
    let mut pairs = pairs.collect::<Option<Vec<_>>>()?;
    pairs.sort();
    let pairs: Vec<String> = pairs.into_iter().map(|(k, v)| format!("{k}:{v}")).collect();
    Some(format!("{{{}}}", pairs.join(", ")))
}
