//! Durations as Go writes them (`time.ParseDuration`): `300ms`, `1h0m0s`, `-1.5h`.

use std::time::Duration;

/// A duration that may be negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GoDuration {
    pub negative: bool,
    pub length: Duration,
}

const UNITS: [(&str, u128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Parses a duration; the error is Go's sentence.
pub fn parse(text: &str) -> Result<GoDuration, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(GoDuration { negative: false, length: Duration::ZERO });
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut nanos: u128 = 0;
    while !rest.is_empty() {
        let part;
        (part, rest) = one_part(rest, text)?;
        nanos = nanos.checked_add(part).filter(|n| *n <= i64::MAX as u128).ok_or_else(invalid)?;
    }
    Ok(GoDuration { negative, length: Duration::from_nanos(nanos as u64) })
}

/// The first number with its unit, in nanoseconds, and what follows it.
fn one_part<'a>(rest: &'a str, text: &str) -> Result<(u128, &'a str), String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let (number, rest) = rest.split_at(number_end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || whole.len() > 19 {
        return Err(invalid());
    }
    let unit_end = rest.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(unit_end);
    if unit.is_empty() {
        return Err(format!("time: missing unit in duration {text:?}"));
    }
    let scale = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, scale)| *scale);
    let scale = scale.ok_or_else(|| format!("time: unknown unit {unit:?} in duration {text:?}"))?;
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| invalid())? };
    // Digits beyond a nanosecond's of the largest unit change nothing.
    let digits: String = fraction.chars().take(18).collect();
    let parts: u128 = if digits.is_empty() { 0 } else { digits.parse().map_err(|_| invalid())? };
    Ok((whole * scale + parts * scale / 10u128.pow(digits.len() as u32), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_go_reads_them() {
        let length = |text: &str| parse(text).map(|d| d.length.as_nanos());
        assert_eq!(length("1h0m0s"), Ok(3_600_000_000_000));
        assert_eq!(length("1.5h"), Ok(5_400_000_000_000));
        assert_eq!(length(".5s"), Ok(500_000_000));
        assert_eq!(length("300ms"), Ok(300_000_000));
        assert_eq!(length("2\u{b5}s"), Ok(2_000));
        assert_eq!(length("0"), Ok(0));
        assert!(parse("-1s").is_ok_and(|d| d.negative));
    }

    #[test]
    fn faults_are_gos() {
        let fault = |text: &str| parse(text).expect_err("refused");
        assert_eq!(fault(""), r#"time: invalid duration """#);
        assert_eq!(fault("."), r#"time: invalid duration ".""#);
        assert_eq!(fault("10"), r#"time: missing unit in duration "10""#);
        assert_eq!(fault("10x"), r#"time: unknown unit "x" in duration "10x""#);
        assert_eq!(fault("9999999h"), r#"time: invalid duration "9999999h""#);
    }
}
