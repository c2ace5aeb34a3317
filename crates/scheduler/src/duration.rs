//! Durations in configurations, as Go writes them.

use std::time::Duration;

use serde::{Deserialize, Deserializer};

/// A duration such as `30s`.
pub(crate) fn required<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    let parsed = api::duration::parse(&text).map_err(serde::de::Error::custom)?;
    // None of them may be below zero; zero is refused where it is validated.
    Ok(if parsed.negative { Duration::ZERO } else { parsed.length })
}

pub(crate) fn optional<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    required(from).map(Some)
}
