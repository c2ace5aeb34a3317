//! RFC 3339 times in the two forms the API uses: whole seconds and microseconds, both in UTC.

use jiff::Timestamp;

/// `2006-01-02T15:04:05Z`; `None` for the empty string, which reads as unset.
pub fn canonical_seconds(text: &str) -> Result<Option<String>, String> {
    Ok(parse(text)?.map(|at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()))
}

/// `2006-01-02T15:04:05.000000Z`.
pub fn canonical_micros(text: &str) -> Result<Option<String>, String> {
    Ok(parse(text)?.map(|at| at.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()))
}

fn parse(text: &str) -> Result<Option<Timestamp>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let wrong = |_| {
        let part = text.get(..4).filter(|y| y.bytes().all(|b| b.is_ascii_digit()));
        let (rest, layout) = match part {
            Some(_) => (text.get(4..).unwrap_or(""), "-"),
            None => (text, "2006"),
        };
        format!(
            "parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {rest:?} as {layout:?}"
        )
    };
    text.parse().map(Some).map_err(wrong)
}
