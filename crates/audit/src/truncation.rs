//! Events that are too large.

use crate::event::Event;

/// How large events may be (`--audit-*-truncate-*`).
#[derive(Debug, Clone, Copy)]
pub struct Truncation {
    pub max_event: usize,
    pub max_batch: usize,
}

impl Truncation {
    /// The event's text; without its objects when it is too large, and none when it still is.
    pub(crate) fn cut(
        truncation: Option<Truncation>,
        event: Event,
        text: fn(&Event) -> String,
    ) -> Option<String> {
        let whole = text(&event);
        let Some(Truncation { max_event, .. }) = truncation.filter(|t| whole.len() > t.max_event)
        else {
            return Some(whole);
        };
        let cut = text(&event.truncated());
        if cut.len() > max_event {
            tracing::error!(bytes = cut.len(), "an audit event is too large, and lost");
            return None;
        }
        Some(cut)
    }
}
