//! Moments and spans of time. Moments reach from year 1 to the end of year 9999, which is further
//! than the calendar crate goes, so the calendar is computed here; time zones are jiff's.

use std::fmt;

/// Seconds of the first and last moment.
const FIRST: i64 = -62_135_596_800;
const LAST: i64 = 253_402_300_799;
const NANOS: i128 = 1_000_000_000;

/// A moment: nanoseconds since 1970 began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(i128);

/// A span of time: nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub i64);

/// Parts of a moment in some time zone.
pub(crate) struct Civil {
    pub(crate) year: i64,
    /// From 1.
    pub(crate) month: i64,
    /// From 1.
    pub(crate) day: i64,
    /// From 0.
    pub(crate) day_of_year: i64,
    /// From 0, Sunday.
    pub(crate) weekday: i64,
    pub(crate) hour: i64,
    pub(crate) minute: i64,
    pub(crate) second: i64,
    pub(crate) nanosecond: i64,
}

impl Time {
    pub(crate) fn from_seconds(seconds: i64) -> Option<Time> {
        (FIRST..=LAST).contains(&seconds).then_some(Time(i128::from(seconds) * NANOS))
    }

    fn checked(nanos: i128) -> Option<Time> {
        let seconds = nanos.div_euclid(NANOS);
        (i128::from(FIRST)..=i128::from(LAST)).contains(&seconds).then_some(Time(nanos))
    }

    pub(crate) fn seconds(self) -> i64 {
        self.0.div_euclid(NANOS) as i64
    }

    pub(crate) fn plus(self, span: Span) -> Option<Time> {
        Time::checked(self.0 + i128::from(span.0))
    }

    pub(crate) fn minus(self, span: Span) -> Option<Time> {
        Time::checked(self.0 - i128::from(span.0))
    }

    pub(crate) fn since(self, other: Time) -> Option<Span> {
        i64::try_from(self.0 - other.0).ok().map(Span)
    }

    /// Reads RFC 3339.
    pub(crate) fn parse(text: &str) -> Option<Time> {
        let bytes = text.as_bytes();
        let number = |from: usize, to: usize| -> Option<i64> {
            let digits = text.get(from..to).filter(|t| t.bytes().all(|b| b.is_ascii_digit()))?;
            digits.parse().ok()
        };
        let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
        if separators.iter().any(|(at, want)| bytes.get(*at) != Some(want)) {
            return None;
        }
        let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
        let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
        let valid = (1..=12).contains(&month)
            && (1..=days_in(year, month)).contains(&day)
            && hour < 24
            && minute < 60
            && second < 60;
        let (nanos, zone) = fraction(&text[19..])?;
        let seconds = days_before(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
        let seconds = seconds - offset_of(zone)?;
        if !valid { None } else { Time::checked(i128::from(seconds) * NANOS + i128::from(nanos)) }
    }

    /// Parts of the moment, so many seconds east of Greenwich.
    pub(crate) fn civil(self, offset: i64) -> Civil {
        let seconds = self.seconds() + offset;
        let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        let (year, month, day) = date_of(days);
        Civil {
            year,
            month,
            day,
            day_of_year: days - days_before(year, 1, 1),
            weekday: (days + 4).rem_euclid(7),
            hour: rest / 3_600,
            minute: rest / 60 % 60,
            second: rest % 60,
            nanosecond: self.0.rem_euclid(NANOS) as i64,
        }
    }

    /// Seconds east of Greenwich at this moment in a zone: a name, or `+hh:mm`.
    pub(crate) fn offset_in(self, zone: &str) -> Result<i64, String> {
        if let Some((hours, minutes)) = zone.split_once(':') {
            let number = |text: &str| {
                text.parse::<i64>()
                    .map_err(|_| format!("strconv.Atoi: parsing {text:?}: invalid syntax"))
            };
            let (hours, minutes) = (number(hours)?, number(minutes)?);
            let minutes = if zone.starts_with('-') { -minutes } else { minutes };
            return Ok((hours.clamp(-1_000, 1_000) * 60 + minutes.clamp(-60_000, 60_000)) * 60);
        }
        if matches!(zone, "" | "UTC") {
            return Ok(0);
        }
        let found =
            jiff::tz::TimeZone::get(zone).map_err(|_| format!("unknown time zone {zone}"))?;
        let (least, most) = (jiff::Timestamp::MIN.as_second(), jiff::Timestamp::MAX.as_second());
        let moment = jiff::Timestamp::from_second(self.seconds().clamp(least, most));
        Ok(moment.map_or(0, |moment| i64::from(found.to_offset(moment).seconds())))
    }
}

/// Nanoseconds of `.123…`, and what follows.
fn fraction(text: &str) -> Option<(i64, &str)> {
    let Some(digits) = text.strip_prefix(['.', ',']) else { return Some((0, text)) };
    let count = digits.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, rest) = digits.split_at(count);
    let kept = &digits[..count.min(9)];
    Some((kept.parse::<i64>().ok()? * 10i64.pow(9 - kept.len() as u32), rest))
}

/// Seconds of `Z` or `±hh:mm`.
fn offset_of(zone: &str) -> Option<i64> {
    if matches!(zone, "Z" | "z") {
        return Some(0);
    }
    let sign = match zone.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, minutes) = zone[1..].split_once(':')?;
    let (hours, minutes): (i64, i64) = (hours.parse().ok()?, minutes.parse().ok()?);
    (zone.len() == 6 && hours < 24 && minutes < 60).then_some(sign * (hours * 3_600 + minutes * 60))
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970 to a date, by years that begin in March.
fn days_before(year: i64, month: i64, day: i64) -> i64 {
    let shifted = if month > 2 { year } else { year - 1 };
    let era = shifted.div_euclid(400);
    let of_era = shifted.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The date so many days after 1970 began.
fn date_of(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let (day, month) = (of_year - (153 * shifted + 2) / 5 + 1, (shifted + 2) % 12 + 1);
    (year + era * 400 + i64::from(month <= 2), month, day)
}

/// RFC 3339 in UTC, with as many digits as it takes.
impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let c = self.civil(0);
        write!(f, "{:04}-{:02}-{:02}T", c.year, c.month, c.day)?;
        write!(f, "{:02}:{:02}:{:02}", c.hour, c.minute, c.second)?;
        if c.nanosecond > 0 {
            write!(f, ".{}", format!("{:09}", c.nanosecond).trim_end_matches('0'))?;
        }
        f.write_str("Z")
    }
}

const UNITS: [(&str, i128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", NANOS),
    ("m", 60 * NANOS),
    ("h", 3_600 * NANOS),
];

impl Span {
    /// Reads Go's form: `1h30m`, `-1.5s`, `0`.
    pub(crate) fn parse(text: &str) -> Option<Span> {
        let negative = text.starts_with('-');
        let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
        if rest == "0" {
            return Some(Span(0));
        }
        let mut total: i128 = 0;
        while !rest.is_empty() || total == 0 {
            let digits = rest.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
            let (number, unit_on) = rest.split_at(digits);
            let unit_end =
                unit_on.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(unit_on.len());
            let (unit, after) = unit_on.split_at(unit_end);
            let (_, nanos) = UNITS.iter().find(|(name, _)| *name == unit)?;
            total = total.checked_add(times(number, *nanos)?)?;
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        let total = if negative { -total } else { total };
        i64::try_from(total).ok().map(Span)
    }

    pub(crate) fn in_seconds(self) -> f64 {
        (self.0 / NANOS as i64) as f64 + (self.0 % NANOS as i64) as f64 / 1e9
    }
}

/// A decimal number of units.
fn times(number: &str, unit: i128) -> Option<i128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let kept = &fraction[..fraction.len().min(18)];
    let part: i128 = if kept.is_empty() { 0 } else { kept.parse().ok()? };
    whole.checked_mul(unit)?.checked_add(part * unit / 10i128.pow(kept.len() as u32))
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}s", self.in_seconds())
    }
}

#[cfg(test)]
mod tests {
    use super::{Span, Time};

    #[test]
    fn moments_are_read_and_printed() {
        for (text, shown) in [
            ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z"),
            ("9999-12-31T23:59:59.999999999Z", "9999-12-31T23:59:59.999999999Z"),
            ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
            ("2024-02-29T12:00:00.5+02:00", "2024-02-29T10:00:00.5Z"),
        ] {
            assert_eq!(Time::parse(text).expect(text).to_string(), shown);
        }
        for text in ["2023-02-29T00:00:00Z", "2023-01-01", "2023-01-01T24:00:00Z", "", "x"] {
            assert_eq!(Time::parse(text), None, "{text}");
        }
    }

    #[test]
    fn spans_are_read_and_printed() {
        for (text, nanos, shown) in [
            ("1h30m", 5_400_000_000_000, "5400s"),
            ("-1.5s", -1_500_000_000, "-1.5s"),
            ("100ms", 100_000_000, "0.1s"),
            ("0", 0, "0s"),
        ] {
            let span = Span::parse(text).expect(text);
            assert_eq!((span.0, span.to_string().as_str()), (nanos, shown));
        }
        for text in ["", "1", "s", "1x", "-", "1.2.3s", "9999999999h"] {
            assert_eq!(Span::parse(text), None, "{text}");
        }
    }
}
