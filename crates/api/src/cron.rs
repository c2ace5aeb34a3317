//! Cron schedules, read and followed as upstream's parser and scheduler do (robfig/cron's standard form):
//! five fields or a descriptor, optionally after `TZ=zone`.

use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan, Zoned};

use crate::duration;

struct Bounds {
    min: i64,
    max: i64,
    names: &'static [&'static str],
}

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const FIELDS: [Bounds; 5] = [
    Bounds { min: 0, max: 59, names: &[] },
    Bounds { min: 0, max: 23, names: &[] },
    Bounds { min: 1, max: 31, names: &[] },
    Bounds { min: 1, max: 12, names: &MONTHS },
    Bounds { min: 0, max: 6, names: &DAYS },
];
/// A schedule without a time in so many years has none.
const YEARS_MAX: i16 = 5;

/// Whether the time zone database has this name. The database does not care for case; names do.
pub fn is_time_zone(name: &str) -> bool {
    jiff::tz::db().get(name).is_ok_and(|zone| zone.iana_name() == Some(name))
}

/// Times that repeat.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// Of the `TZ=` prefix.
    zone: Option<TimeZone>,
    times: Times,
}

#[derive(Debug, Clone, PartialEq)]
enum Times {
    Every(Duration),
    Fields(Fields),
}

/// Which minutes, hours, days of the month, months and days of the week: one bit each.
#[derive(Debug, Clone, Default, PartialEq)]
struct Fields {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// `*` in one of the two fields of days: then the other one alone decides.
    any_day: bool,
}

impl Schedule {
    /// The error is upstream's sentence.
    pub fn parse(text: &str) -> Result<Schedule, String> {
        if text.is_empty() {
            return Err("empty spec string".into());
        }
        let (zone, rest) = match text.starts_with("TZ=") || text.starts_with("CRON_TZ=") {
            true => zone_prefix(text)?,
            false => (None, text),
        };
        if rest.starts_with('@') {
            return Ok(Schedule { zone, times: descriptor(rest)? });
        }
        let texts: Vec<&str> = rest.split_whitespace().collect();
        if texts.len() != FIELDS.len() {
            let found = texts.len();
            let all = texts.join(" ");
            return Err(format!("expected exactly 5 fields, found {found}: [{all}]"));
        }
        let mut bits = [0; 5];
        let mut any = [false; 5];
        for (at, (text, bounds)) in texts.iter().zip(&FIELDS).enumerate() {
            (bits[at], any[at]) = field(text, bounds)?;
        }
        let [minutes, hours, days, months, weekdays] = bits;
        let any_day = any[2] || any[4];
        let fields = Fields { minutes, hours, days, months, weekdays, any_day };
        Ok(Schedule { zone, times: Times::Fields(fields) })
    }

    /// The first time after `after`, in the schedule's own time zone or else in `zone`. `None` if there
    /// is none within five years.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match &self.times {
            Times::Every(period) => {
                let whole = Timestamp::from_second(after.as_second()).ok()?;
                whole.checked_add(SignedDuration::try_from(*period).ok()?).ok()
            }
            Times::Fields(fields) => {
                let zone = self.zone.clone().unwrap_or_else(|| zone.clone());
                fields.next(after.to_zoned(zone))
            }
        }
    }
}

impl Fields {
    fn next(&self, after: Zoned) -> Option<Timestamp> {
        let last_year = after.year().checked_add(YEARS_MAX)?;
        let second = Timestamp::from_second(after.timestamp().as_second() + 1).ok()?;
        let mut at = second.to_zoned(after.time_zone().clone());
        let has = |bits: u64, n: i8| bits & (1 << n) != 0;
        // Each step goes to the beginning of the next unit that could fit. Hours and minutes are
        // steps in real time: an hour that the clocks skip does not come, one that they repeat
        // comes twice.
        while at.year() <= last_year {
            let into_hour = i64::from(at.minute()) * 60 + i64::from(at.second());
            if !has(self.months, at.month()) {
                let month = at.first_of_month().ok()?.checked_add(1.month()).ok()?;
                at = month.start_of_day().ok()?;
            } else if !self.has_day(&at) {
                at = at.tomorrow().ok()?.start_of_day().ok()?;
            } else if !has(self.hours, at.hour()) {
                at = forward(&at, 3600 - into_hour)?;
            } else if !has(self.minutes, at.minute()) || at.second() != 0 {
                at = forward(&at, 60 - i64::from(at.second()))?;
            } else {
                return Some(at.timestamp());
            }
        }
        None
    }

    fn has_day(&self, at: &Zoned) -> bool {
        let of_month = self.days & (1 << at.day()) != 0;
        let weekday = at.weekday().to_sunday_zero_offset();
        let of_week = self.weekdays & (1 << weekday) != 0;
        if self.any_day { of_month && of_week } else { of_month || of_week }
    }
}

fn forward(at: &Zoned, seconds: i64) -> Option<Zoned> {
    at.checked_add(SignedDuration::from_secs(seconds)).ok()
}

fn zone_prefix(text: &str) -> Result<(Option<TimeZone>, &str), String> {
    let Some((prefix, rest)) = text.split_once(' ') else {
        return Err("provided bad location".into());
    };
    let name = prefix.split_once('=').map_or("", |(_, name)| name);
    let zone = match name {
        "" | "UTC" => Some(TimeZone::UTC),
        "Local" => None,
        name => match jiff::tz::db().get(name) {
            Ok(zone) if is_time_zone(name) => Some(zone),
            _ => return Err(format!("provided bad location {name}: unknown time zone {name}")),
        },
    };
    Ok((zone, rest.trim()))
}

fn descriptor(text: &str) -> Result<Times, String> {
    let standard = match text {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        _ => return every(text),
    };
    Schedule::parse(standard).map(|schedule| schedule.times)
}

/// At least a second, in whole seconds.
fn every(text: &str) -> Result<Times, String> {
    let Some(period) = text.strip_prefix("@every ") else {
        return Err(format!("unrecognized descriptor: {text}"));
    };
    let parsed = duration::parse(period)
        .map_err(|fault| format!("failed to parse duration {text}: {fault}"))?;
    let seconds = if parsed.negative { 0 } else { parsed.length.as_secs() };
    Ok(Times::Every(Duration::from_secs(seconds.max(1))))
}

/// The bits of a field, and whether it says `*`.
fn field(text: &str, bounds: &Bounds) -> Result<(u64, bool), String> {
    let (mut bits, mut any) = (0, false);
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (more, star) = range(part, bounds)?;
        bits |= more;
        any |= star;
    }
    Ok((bits, any))
}

fn range(text: &str, bounds: &Bounds) -> Result<(u64, bool), String> {
    let parts: Vec<&str> = text.split('/').collect();
    let ends: Vec<&str> = parts[0].split('-').collect();
    let single = ends.len() == 1;
    let mut any = false;
    let (start, mut end) = if matches!(ends[0], "*" | "?") {
        any = true;
        (bounds.min, bounds.max)
    } else {
        let start = number_or_name(ends[0], bounds)?;
        match ends.len() {
            1 => (start, start),
            2 => (start, number_or_name(ends[1], bounds)?),
            _ => return Err(format!("too many hyphens: {text}")),
        }
    };
    let step = match parts.len() {
        1 => 1,
        2 => {
            let step = number(parts[1])?;
            if single {
                end = bounds.max;
            }
            any &= step <= 1;
            step
        }
        _ => return Err(format!("too many slashes: {text}")),
    };
    if start < bounds.min {
        return Err(format!("beginning of range ({start}) below minimum ({}): {text}", bounds.min));
    }
    if end > bounds.max {
        return Err(format!("end of range ({end}) above maximum ({}): {text}", bounds.max));
    }
    if start > end {
        return Err(format!("beginning of range ({start}) beyond end of range ({end}): {text}"));
    }
    if step == 0 {
        return Err(format!("step of range should be a positive number: {text}"));
    }
    let step = usize::try_from(step).unwrap_or(usize::MAX);
    let bits = (start..=end).step_by(step).fold(0, |bits, n| bits | 1 << n);
    Ok((bits, any))
}

fn number_or_name(text: &str, bounds: &Bounds) -> Result<i64, String> {
    let lower = text.to_lowercase();
    match bounds.names.iter().position(|name| *name == lower) {
        Some(at) => Ok(at as i64 + bounds.min),
        None => number(text),
    }
}

fn number(text: &str) -> Result<i64, String> {
    let number: i64 = text.parse().map_err(|_| {
        format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax")
    })?;
    if number < 0 {
        return Err(format!("negative number ({number}) not allowed: {text}"));
    }
    Ok(number)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use jiff::tz::TimeZone;

    use super::Schedule;

    #[test]
    fn schedules_and_their_faults() {
        for good in
            ["*/5 * * * *", "0 0 1 jan ?", "@hourly", "@every 1h30m", "TZ=UTC 0 0 * * MON-FRI"]
        {
            assert!(Schedule::parse(good).is_ok(), "{good}");
        }
        for (bad, fault) in [
            ("bad", "expected exactly 5 fields, found 1: [bad]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            (
                "x * * * *",
                "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax",
            ),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("@never", "unrecognized descriptor: @never"),
            ("@every x", "failed to parse duration @every x: time: invalid duration \"x\""),
        ] {
            assert_eq!(Schedule::parse(bad), Err(fault.to_owned()), "{bad}");
        }
    }

    fn next(schedule: &str, after: &str) -> String {
        let after: Timestamp = after.parse().expect("a time");
        let schedule = Schedule::parse(schedule).expect("a schedule");
        schedule.next(after, &TimeZone::UTC).map_or("never".into(), |t| t.to_string())
    }

    // Times that robfig/cron's own tests name.
    #[test]
    fn times_follow_each_other() {
        for (after, schedule, expected) in [
            ("2012-07-09T14:45:00Z", "0/15 * * * *", "2012-07-09T15:00:00Z"),
            ("2012-07-09T14:59:59Z", "0/15 * * * *", "2012-07-09T15:00:00Z"),
            ("2012-07-09T15:45:00Z", "20-35/15 * * * *", "2012-07-09T16:20:00Z"),
            ("2012-07-09T23:46:00Z", "*/15 * * * *", "2012-07-10T00:00:00Z"),
            ("2012-07-09T23:35:00Z", "0 0 9 apr-oct *", "2012-08-09T00:00:00Z"),
            ("2012-07-09T23:35:00Z", "0 0 */5 apr,aug,oct mon", "2012-08-01T00:00:00Z"),
            ("2012-07-09T23:35:00Z", "0 0 * feb mon", "2013-02-04T00:00:00Z"),
            ("2012-07-09T23:35:00Z", "0 0 29 feb ?", "2016-02-29T00:00:00Z"),
            ("2012-07-09T23:35:00Z", "30 8 * * *", "2012-07-10T08:30:00Z"),
            ("2012-07-09T23:35:00Z", "0 0 30 feb ?", "never"),
            ("2012-07-09T23:35:00Z", "0 0 31 apr ?", "never"),
            // Days of the month or of the week, when both are named.
            ("2012-07-15T00:00:00Z", "0 0 1,15 * sun", "2012-07-22T00:00:00Z"),
            ("2012-07-09T14:45:01.5Z", "@every 1h", "2012-07-09T15:45:01Z"),
            ("2012-07-09T14:45:01Z", "@weekly", "2012-07-15T00:00:00Z"),
        ] {
            assert_eq!(next(schedule, after), expected, "{schedule} after {after}");
        }
    }

    #[test]
    fn clocks_skip_and_repeat_hours() {
        let zone = "TZ=America/New_York";
        for (after, schedule, expected) in [
            ("2012-03-11T05:00:00Z", "30 2 11 mar ?", "2013-03-11T06:30:00Z"),
            ("2012-03-11T05:00:00Z", "0 * * * ?", "2012-03-11T06:00:00Z"),
            ("2012-03-11T06:00:00Z", "0 * * * ?", "2012-03-11T07:00:00Z"),
            ("2012-11-04T04:00:00Z", "30 1 * * ?", "2012-11-04T05:30:00Z"),
            ("2012-11-04T05:30:00Z", "30 1 * * ?", "2012-11-04T06:30:00Z"),
        ] {
            let schedule = format!("{zone} {schedule}");
            assert_eq!(next(&schedule, after), expected, "{schedule} after {after}");
        }
    }

    /// A machine without tzdata knows the zones, too.
    #[test]
    fn zones_are_in_the_binary() {
        let bundled = jiff::tz::TimeZoneDatabase::bundled();
        for zone in ["Europe/Berlin", "America/New_York", "Asia/Shanghai"] {
            assert!(bundled.get(zone).is_ok(), "{zone}");
        }
        assert!(bundled.get("Nowhere/None").is_err());
    }
}
