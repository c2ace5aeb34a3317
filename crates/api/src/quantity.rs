//! `resource.Quantity`: decimal numbers with SI or binary suffixes, in upstream's canonical
//! form (apimachinery `pkg/api/resource`).
//!
//! Held in nano-units: the API's smallest unit, to which upstream rounds up as well.

use std::fmt;

const NANO: i128 = 1_000_000_000;

/// A quantity and the family of suffixes it is printed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    DecimalSi,
    BinarySi,
    DecimalExponent,
}

/// Upstream's one sentence for a malformed quantity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
)]
pub struct Malformed;

const DECIMAL: [(&str, i32); 10] = [
    ("n", -9),
    ("u", -6),
    ("m", -3),
    ("", 0),
    ("k", 3),
    ("M", 6),
    ("G", 9),
    ("T", 12),
    ("P", 15),
    ("E", 18),
];
const BINARY: [(&str, u32); 6] =
    [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];

impl Quantity {
    pub const ZERO: Quantity = Quantity { nanos: 0, format: Format::DecimalSi };

    /// Reads the text form.
    pub fn parse(text: &str) -> Result<Quantity, Malformed> {
        let end = text
            .char_indices()
            .find(|(i, c)| {
                !(c.is_ascii_digit() || *c == '.' || (*i == 0 && matches!(c, '+' | '-')))
            })
            .map_or(text.len(), |(i, _)| i);
        let (number, suffix) = text.split_at(end);
        let (digits, decimals) = digits_of(number)?;
        let (multiplier, exponent, format) = suffix_of(suffix)?;
        let scaled = digits.checked_mul(multiplier).ok_or(Malformed)?;
        let nanos = scale(scaled, exponent - decimals + 9).ok_or(Malformed)?;
        Ok(Quantity { nanos, format })
    }

    /// A whole number of units.
    pub fn from_units(units: i64) -> Quantity {
        Quantity { nanos: i128::from(units) * NANO, format: Format::DecimalSi }
    }

    /// A whole number of thousandths.
    pub fn from_milli(milli: i64) -> Quantity {
        Quantity { nanos: i128::from(milli) * (NANO / 1000), format: Format::DecimalSi }
    }

    /// A number of bytes, printed with binary suffixes.
    pub fn from_bytes(bytes: i64) -> Quantity {
        Quantity { nanos: i128::from(bytes) * NANO, format: Format::BinarySi }
    }

    /// Whole units, rounded up.
    pub fn value(&self) -> i64 {
        saturate(div_up(self.nanos, NANO))
    }

    /// Thousandths, rounded up: millicores for cpu.
    pub fn milli_value(&self) -> i64 {
        saturate(div_up(self.nanos, NANO / 1000))
    }

    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    pub fn is_negative(&self) -> bool {
        self.nanos < 0
    }
}

/// The sum keeps the left side's suffixes, unless it is zero.
impl std::ops::Add for Quantity {
    type Output = Quantity;

    fn add(self, other: Quantity) -> Quantity {
        let format = if self.is_zero() { other.format } else { self.format };
        Quantity { nanos: self.nanos.saturating_add(other.nanos), format }
    }
}

impl std::ops::Sub for Quantity {
    type Output = Quantity;

    fn sub(self, other: Quantity) -> Quantity {
        let format = if self.is_zero() { other.format } else { self.format };
        Quantity { nanos: self.nanos.saturating_sub(other.nanos), format }
    }
}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Quantity) -> Option<std::cmp::Ordering> {
        Some(self.nanos.cmp(&other.nanos))
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        match self.format {
            Format::BinarySi if self.nanos.abs() >= 1024 * NANO && self.nanos % NANO == 0 => {
                self.fmt_binary(f)
            }
            Format::DecimalExponent => self.fmt_decimal(f, |exp| match exp {
                0 => String::new(),
                exp => format!("e{exp}"),
            }),
            _ => self.fmt_decimal(f, |exp| {
                DECIMAL.iter().find(|(_, e)| *e == exp).map_or(String::new(), |(s, _)| (*s).into())
            }),
        }
    }
}

impl Quantity {
    fn fmt_binary(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = self.nanos / NANO;
        let fits = BINARY.iter().rev().find(|(_, shift)| units % (1i128 << shift) == 0);
        match fits {
            Some((suffix, shift)) => write!(f, "{}{suffix}", units >> shift),
            None => write!(f, "{units}"),
        }
    }

    fn fmt_decimal(
        &self,
        f: &mut fmt::Formatter<'_>,
        suffix: impl Fn(i32) -> String,
    ) -> fmt::Result {
        let (mut mantissa, mut exponent) = (self.nanos, -9);
        while mantissa % 1000 == 0 && exponent < 18 {
            mantissa /= 1000;
            exponent += 3;
        }
        write!(f, "{mantissa}{}", suffix(exponent))
    }
}

/// Digits as an integer, and how many of them stand behind the point.
fn digits_of(number: &str) -> Result<(i128, i32), Malformed> {
    let (sign, plain) = match number.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, fraction) = plain.split_once('.').unwrap_or((plain, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Malformed);
    }
    let value: i128 = digits.parse().map_err(|_| Malformed)?;
    Ok((sign * value, fraction.len() as i32))
}

/// Multiplier, decimal exponent and family of a suffix.
fn suffix_of(suffix: &str) -> Result<(i128, i32, Format), Malformed> {
    if let Some((_, exponent)) = DECIMAL.iter().find(|(s, _)| *s == suffix) {
        return Ok((1, *exponent, Format::DecimalSi));
    }
    if let Some((_, shift)) = BINARY.iter().find(|(s, _)| *s == suffix) {
        return Ok((1 << shift, 0, Format::BinarySi));
    }
    let exponent = suffix.strip_prefix(['e', 'E']).ok_or(Malformed)?;
    let exponent: i32 = exponent.parse().map_err(|_| Malformed)?;
    if exponent.abs() > 36 {
        return Err(Malformed);
    }
    Ok((1, exponent, Format::DecimalExponent))
}

/// `value * 10^exponent`, rounded away from zero as upstream does.
fn scale(value: i128, exponent: i32) -> Option<i128> {
    let power = 10i128.checked_pow(exponent.unsigned_abs())?;
    if exponent >= 0 { value.checked_mul(power) } else { Some(div_up(value, power)) }
}

fn div_up(value: i128, by: i128) -> i128 {
    let (whole, rest) = (value / by, value % by);
    whole + rest.signum()
}

fn saturate(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests {
    use super::Quantity;

    fn check(text: &str, canonical: &str) {
        assert_eq!(
            Quantity::parse(text).map(|q| q.to_string()).as_deref(),
            Ok(canonical),
            "{text}"
        );
    }

    #[test]
    fn canonical_forms() {
        for (text, canonical) in [
            ("0", "0"),
            ("1000m", "1"),
            ("0.5", "500m"),
            ("1.5Gi", "1536Mi"),
            ("64Mi", "64Mi"),
            ("1024Ki", "1Mi"),
            ("1e3", "1e3"),
            ("1000", "1k"),
            ("100m", "100m"),
            ("12345", "12345"),
            ("-5", "-5"),
            ("1.5", "1500m"),
            ("0.0000000001", "1n"),
            ("128974848", "128974848"),
            ("512", "512"),
            ("1023Ki", "1023Ki"),
            ("2.5k", "2500"),
        ] {
            check(text, canonical);
        }
    }

    #[test]
    fn malformed() {
        for text in ["", "abc", "1.2.3", "5Zi", "--1", "1e", "1 Mi"] {
            assert!(Quantity::parse(text).is_err(), "{text}");
        }
    }
}
