//! RFC 3339 times in the two forms the API uses: whole seconds and microseconds, both in UTC.

use jiff::Timestamp;

/// `2006-01-02T15:04:05Z`.
pub fn canonical_seconds(text: &str) -> Result<String, String> {
    let at = parse(text, "2006-01-02T15:04:05Z07:00")?;
    Ok(at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// `2006-01-02T15:04:05.000000Z`.
pub fn canonical_micros(text: &str) -> Result<String, String> {
    let at = parse(text, "2006-01-02T15:04:05.000000Z07:00")?;
    Ok(at.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string())
}

fn parse(text: &str, layout: &'static str) -> Result<Timestamp, String> {
    text.parse().map_err(|_| refusal(text, layout))
}

/// Go's sentence about a text that is no time of a layout.
fn refusal(text: &str, layout: &str) -> String {
    let cannot = |rest: &str, part: &str| {
        format!("parsing time {text:?} as {layout:?}: cannot parse {rest:?} as {part:?}")
    };
    let is_digit = |rest: &str, at: usize| rest.as_bytes().get(at).is_some_and(u8::is_ascii_digit);
    let mut rest = text;
    for (part, digits) in [
        ("2006", 4),
        ("-", 0),
        ("01", 2),
        ("-", 0),
        ("02", 2),
        ("T", 0),
        ("15", 2),
        (":", 0),
        ("04", 2),
        (":", 0),
        ("05", 2),
    ] {
        let fits = match digits {
            0 => rest.starts_with(part),
            count => (0..count).all(|at| is_digit(rest, at)),
        };
        if !fits {
            return cannot(rest, part);
        }
        rest = &rest[part.len()..];
    }
    if rest.starts_with('.') && is_digit(rest, 1) {
        rest = rest[1..].trim_start_matches(|c: char| c.is_ascii_digit());
    }
    let zone = match rest.as_bytes() {
        [b'Z', ..] => 1,
        [b'+' | b'-', _, _, b':', _, _, ..]
            if [1, 2, 4, 5].iter().all(|at| is_digit(rest, *at)) =>
        {
            6
        }
        _ => return cannot(rest, "Z07:00"),
    };
    match &rest[zone..] {
        "" => format!("parsing time {text:?}: {} out of range", out_of_range(text)),
        extra => format!("parsing time {text:?}: extra text: {extra:?}"),
    }
}

/// The part of a well-formed time that no calendar has.
fn out_of_range(text: &str) -> &'static str {
    let part = |from: usize| text.get(from..from + 2).and_then(|p| p.parse().ok()).unwrap_or(0_u8);
    match () {
        () if !(1..=12).contains(&part(5)) => "month",
        () if part(11) > 23 => "hour",
        () if part(14) > 59 => "minute",
        () if part(17) > 59 => "second",
        () => "day",
    }
}
