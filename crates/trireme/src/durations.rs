//! Flags that are durations.

use std::time::Duration;

/// As Go writes them; none is negative.
pub(crate) fn go_duration(text: &str) -> Result<Duration, String> {
    match api::duration::parse(text)? {
        parsed if parsed.negative => Err("must not be negative".into()),
        parsed => Ok(parsed.length),
    }
}
