//! Uses of service account tokens without an end (KEP-2799): counted, and handed on to who notes them.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use auth::{LegacyUse, LegacyUses};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use telemetry::{IntCounterVec, Registry};
use tokio::sync::mpsc;

/// The warning for clients that use an auto-generated Secret.
pub(crate) const GENERATED: &str = "Use tokens from the TokenRequest API or manually created secret-based tokens instead of auto-generated secret-based tokens.";
/// Secrets that wait for their label. More are labelled when they are used again.
const WAITING_MAX: usize = 256;
/// Counts uses, and hands on those that a Secret does not show yet.
pub(crate) struct LegacyTokens {
    uses: Uses,
    labels: mpsc::Sender<LegacyUse>,
    /// UIDs of the Secrets that wait: a token that is used often is handed on once.
    waiting: Arc<Mutex<HashSet<String>>>,
    labelled: Mutex<Option<mpsc::Receiver<LegacyUse>>>,
}

struct Uses {
    generated: IntCounterVec,
    manual: IntCounterVec,
    invalidated: IntCounterVec,
}

impl LegacyTokens {
    pub(crate) fn new(registry: &Registry) -> LegacyTokens {
        let (labels, labelled) = mpsc::channel(WAITING_MAX);
        let count = |name: &str, help: &str| registry.counters(name, help, &[]);
        let uses = Uses {
            generated: count(
                "serviceaccount_legacy_auto_token_uses_total",
                "Cumulative auto-generated legacy tokens used",
            ),
            manual: count(
                "serviceaccount_legacy_manual_token_uses_total",
                "Cumulative manually created legacy tokens used",
            ),
            invalidated: count(
                "serviceaccount_invalid_legacy_auto_token_uses_total",
                "Cumulative invalid auto-generated legacy tokens used",
            ),
        };
        let labelled = Mutex::new(Some(labelled));
        LegacyTokens { uses, labels, waiting: Arc::default(), labelled }
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has each use that is handed on noted, for ever; the first call's only.
    pub(crate) async fn note_by<F: Future<Output = ()>>(&self, note: impl Fn(LegacyUse) -> F) {
        let labelled = self.labelled.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut labelled) = labelled else { return };
        while let Some(used) = labelled.recv().await {
            let uid = used.secret_uid.clone();
            note(used).await;
            self.waiting().remove(&uid);
        }
    }
}

impl LegacyUses for LegacyTokens {
    fn used(&self, used: &LegacyUse) {
        let counter = match used {
            LegacyUse { is_invalidated: true, .. } => &self.uses.invalidated,
            LegacyUse { is_generated: true, .. } => &self.uses.generated,
            _ => &self.uses.manual,
        };
        counter.with_label_values::<&str>(&[]).inc();
        if is_noted(used.last_used.as_deref(), Timestamp::now()) {
            return;
        }
        if self.waiting().insert(used.secret_uid.clone())
            && self.labels.try_send(used.clone()).is_err()
        {
            self.waiting().remove(&used.secret_uid);
        }
    }
}

/// The day in UTC.
pub(crate) fn day(now: Timestamp) -> Date {
    now.to_zoned(TimeZone::UTC).date()
}

/// Whether the label says today, or tomorrow: another server's clock may be ahead.
fn is_noted(last_used: Option<&str>, now: Timestamp) -> bool {
    let today = day(now);
    let tomorrow = today.saturating_add(1.day());
    last_used.is_some_and(|noted| [today, tomorrow].iter().any(|day| noted == day.to_string()))
}

#[cfg(test)]
mod tests {
    use super::is_noted;

    #[test]
    fn a_use_is_noted_once_a_day() {
        let now = "2026-11-28T23:59:59Z".parse().expect("a time");
        for (noted, is) in [
            (None, false),
            (Some("2026-11-27"), false),
            (Some("2026-11-28"), true),
            (Some("2026-11-29"), true),
            (Some("2026-11-30"), false),
            (Some("today"), false),
        ] {
            assert_eq!(is_noted(noted, now), is, "{noted:?}");
        }
    }
}
