//! Scalars: their types as go-yaml v2 resolves them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use granit_parser::{ScalarStyle, Tag};
use serde_json::{Number, Value};

/// The value of a scalar; an explicit tag that does not fit is refused.
pub(super) fn resolve(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Value, String> {
    let core = tag.and_then(|tag| tag.suffix_in_namespace("tag:yaml.org,2002:"));
    match (core.as_deref(), tag) {
        (Some("str"), _) => Ok(text.into()),
        (Some("binary"), _) => binary(text),
        (Some(tag @ ("bool" | "int" | "float" | "null")), _) => {
            let value = plain(text)?;
            if fits(tag, &value) {
                return Ok(value);
            }
            Err(format!("cannot decode `{text}` as a !!{tag}"))
        }
        (None, None) if style == ScalarStyle::Plain => plain(text),
        _ => Ok(text.into()),
    }
}

fn fits(tag: &str, value: &Value) -> bool {
    match tag {
        "bool" => value.is_boolean(),
        "int" => value.is_i64() || value.is_u64(),
        "float" => value.is_number(),
        _ => value.is_null(),
    }
}

fn binary(text: &str) -> Result<Value, String> {
    let packed: String = text.split_whitespace().collect();
    let bytes = STANDARD.decode(packed).map_err(|_| "!!binary value contains invalid base64")?;
    Ok(String::from_utf8_lossy(&bytes).into_owned().into())
}

/// A scalar without quotes.
fn plain(text: &str) -> Result<Value, String> {
    Ok(match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            true.into()
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            false.into()
        }
        ".nan" | ".NaN" | ".NAN" => return Err("json: unsupported value: NaN".into()),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => {
            return Err("json: unsupported value: +Inf".into());
        }
        "-.inf" | "-.Inf" | "-.INF" => return Err("json: unsupported value: -Inf".into()),
        _ if text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) => {
            number(text).unwrap_or_else(|| text.into())
        }
        _ => text.into(),
    })
}

fn number(text: &str) -> Option<Value> {
    let digits = text.replace('_', "");
    if let Some(whole) = integer(&digits) {
        return match i64::try_from(whole) {
            Ok(small) => Some(small.into()),
            Err(_) => u64::try_from(whole).ok().map(Value::from),
        };
    }
    let float: f64 = is_float(&digits).then(|| digits.parse().ok()).flatten()?;
    if float.fract() == 0.0 && float.abs() < 9e15 {
        return Some((float as i64).into());
    }
    Number::from_f64(float).map(Value::Number)
}

/// Go's `ParseInt` with base 0, and YAML 1.1's `0b`.
fn integer(text: &str) -> Option<i128> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let lower = digits.get(..2).map(str::to_ascii_lowercase);
    let (digits, radix) = match lower.as_deref() {
        Some("0x") => (&digits[2..], 16),
        Some("0o") => (&digits[2..], 8),
        Some("0b") => (&digits[2..], 2),
        _ if digits.len() > 1 && digits.starts_with('0') => (&digits[1..], 8),
        _ => (digits, 10),
    };
    // `from_str_radix` takes a sign of its own.
    if !digits.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return None;
    }
    let value = i128::from_str_radix(digits, radix).ok()?;
    let value = if negative { -value } else { value };
    let within = i128::from(i64::MIN)..=i128::from(u64::MAX);
    within.contains(&value).then_some(value)
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`
fn is_float(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let digits = |text: &str| text.bytes().all(|c| c.is_ascii_digit());
    let some = |text: &str| !text.is_empty() && digits(text);
    let is_mantissa = match mantissa.split_once('.') {
        Some(("", fraction)) => some(fraction),
        Some((whole, fraction)) => some(whole) && digits(fraction),
        None => some(mantissa),
    };
    is_mantissa && exponent.is_none_or(|e| some(e.strip_prefix(['-', '+']).unwrap_or(e)))
}

/// A mapping's key as JSON has it: texts only.
pub(super) fn key_text(key: Value) -> Result<String, String> {
    match key {
        Value::String(text) => Ok(text),
        Value::Bool(_) | Value::Number(_) => Ok(key.to_string()),
        _ => Err("unsupported map key: a key must be a string, number or bool".into()),
    }
}
