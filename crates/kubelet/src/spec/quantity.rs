//! Resource quantities as numbers: the part of the API's format that resources on a node use.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// The value times 1000, rounded up; `None` when it does not parse.
pub(crate) fn millis(quantity: &Quantity) -> Option<i128> {
    scaled(&quantity.0, 1000)
}

/// The value in whole units, rounded up.
pub(crate) fn units(quantity: &Quantity) -> Option<i128> {
    scaled(&quantity.0, 1)
}

/// Bytes in the largest binary unit that needs no fraction, as quantities are printed.
pub(crate) fn shown(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let power = (bytes.trailing_zeros() / 10).min(6) as usize;
    match bytes {
        0 => "0".to_owned(),
        _ => format!("{}{}", bytes >> (10 * power), UNITS[power]),
    }
}

fn scaled(text: &str, unit: i128) -> Option<i128> {
    let end = text.find(|c: char| !(c.is_ascii_digit() || "+-.".contains(c))).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (negative, number) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let (mul, div) = factor(suffix)?;
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let below = 10i128.checked_pow(u32::try_from(fraction.len()).ok()?)?.checked_mul(div)?;
    let value = digits.checked_mul(mul)?.checked_mul(unit)?;
    let up = value / below + i128::from(value % below != 0);
    Some(if negative { -up } else { up })
}

/// Multiplier and divisor of a suffix.
fn factor(suffix: &str) -> Option<(i128, i128)> {
    let binary = |n: u32| Some((1i128 << (10 * n), 1));
    let decimal = |n: u32| Some((1000i128.pow(n), 1));
    match suffix {
        "" => Some((1, 1)),
        "n" => Some((1, 1_000_000_000)),
        "u" => Some((1, 1_000_000)),
        "m" => Some((1, 1000)),
        "k" => decimal(1),
        "M" => decimal(2),
        "G" => decimal(3),
        "T" => decimal(4),
        "P" => decimal(5),
        "E" => decimal(6),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            let power = 10i128.checked_pow(exponent.unsigned_abs())?;
            Some(if exponent >= 0 { (power, 1) } else { (1, power) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_formats_of_the_api() {
        let milli = |s: &str| millis(&Quantity(s.into()));
        assert_eq!(milli("100m"), Some(100));
        assert_eq!(milli("1.5"), Some(1500));
        assert_eq!(milli("0.0001"), Some(1));
        assert_eq!(units(&Quantity("64Mi".into())), Some(64 << 20));
        assert_eq!(units(&Quantity("1e3".into())), Some(1000));
        assert_eq!(units(&Quantity("1G".into())), Some(1_000_000_000));
        assert_eq!(units(&Quantity("".into())), None);
        assert_eq!(units(&Quantity("1x".into())), None);
        let printed = [0, 3, 1500, 3 << 20, 1025 << 10].map(shown);
        assert_eq!(printed, ["0", "3", "1500", "3Mi", "1025Ki"]);
    }
}
