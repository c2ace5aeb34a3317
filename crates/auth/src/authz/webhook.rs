//! A server that is asked by SubjectAccessReviews (apiserver `plugin/pkg/authorizer/webhook`).

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::configuration::{Conditions, WebhookSettings};
use super::{Attributes, Authorization, Opinion, subject};
use crate::user::User;

/// Asks the server.
pub trait SubjectAccessReviews: Send + Sync {
    /// The `status` of a SubjectAccessReview with this `spec` (of version v1). Bounded in time by whoever
    /// implements this.
    fn review<'a>(
        &'a self,
        spec: &'a Value,
    ) -> Pin<Box<dyn Future<Output = Result<Value, ReviewFailure>> + Send + 'a>>;
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReviewFailure {
    pub message: String,
    /// Asking again may help.
    pub is_passing: bool,
}

/// Answers that are kept at most (upstream's LRU).
const KEPT_MAX: usize = 8192;
/// Questions longer than this, in bytes of what clients choose, are not kept.
const KEPT_LEN_MAX: usize = 10_000;
/// How often a server is asked that fails (upstream's `DefaultAuthWebhookRetryBackoff`).
const ATTEMPTS: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const PAUSE_FACTOR: f64 = 1.5;

/// One server, and what it said lately.
pub struct ReviewWebhook {
    reviews: Arc<dyn SubjectAccessReviews>,
    conditions: Conditions,
    /// The opinion when it cannot be asked.
    on_error: Opinion,
    /// How long allowing and other answers are kept; zero is not at all.
    lives: (Duration, Duration),
    kept: Mutex<HashMap<String, (Instant, Value)>>,
}

impl std::fmt::Debug for ReviewWebhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReviewWebhook").field("on_error", &self.on_error).finish_non_exhaustive()
    }
}

impl ReviewWebhook {
    pub fn new(settings: WebhookSettings, reviews: Arc<dyn SubjectAccessReviews>) -> ReviewWebhook {
        ReviewWebhook {
            reviews,
            conditions: settings.conditions,
            on_error: if settings.denies_on_error { Opinion::Deny } else { Opinion::None },
            lives: (settings.authorized_life, settings.unauthorized_life),
            kept: Mutex::default(),
        }
    }

    pub(super) async fn authorize(&self, user: &User, asked: &Attributes<'_>) -> Authorization {
        let spec = subject::spec(user, asked);
        match self.conditions.hold(&spec) {
            Ok(true) => {}
            Ok(false) => return Authorization::new(Opinion::None, String::new(), String::new()),
            Err(why) => return self.failed(why),
        }
        let key = spec.to_string();
        if let Some(status) = self.find(&key) {
            return read(&status);
        }
        match self.ask(&spec).await {
            Err(failure) => {
                tracing::error!(%failure.message, "an authorization webhook cannot be asked");
                self.failed(failure.message)
            }
            Ok(status) => {
                let answer = read(&status);
                if is_kept(asked) {
                    self.keep(key, status);
                }
                answer
            }
        }
    }

    fn failed(&self, why: String) -> Authorization {
        Authorization::new(self.on_error, String::new(), why)
    }

    async fn ask(&self, spec: &Value) -> Result<Value, ReviewFailure> {
        let mut pause = FIRST_PAUSE;
        for _ in 1..ATTEMPTS {
            match self.reviews.review(spec).await {
                Err(failure) if failure.is_passing => tokio::time::sleep(pause).await,
                done => return done,
            }
            pause = pause.mul_f64(PAUSE_FACTOR);
        }
        self.reviews.review(spec).await
    }

    fn life(&self, status: &Value) -> Duration {
        if status["allowed"] == true { self.lives.0 } else { self.lives.1 }
    }

    fn find(&self, key: &str) -> Option<Value> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let (until, status) = kept.get(key)?;
        (Instant::now() < *until).then(|| status.clone())
    }

    fn keep(&self, key: String, status: Value) {
        let now = Instant::now();
        let until = now + self.life(&status);
        if until == now {
            return;
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT_MAX {
            kept.retain(|_, (until, _)| now < *until);
        }
        if kept.len() >= KEPT_MAX {
            // Those that would go first anyway.
            let mut ends: Vec<Instant> = kept.values().map(|(until, _)| *until).collect();
            let middle = *ends.select_nth_unstable(KEPT_MAX / 2).1;
            kept.retain(|_, (until, _)| *until > middle);
        }
        kept.insert(key, (until, status));
    }
}

fn is_kept(asked: &Attributes<'_>) -> bool {
    let a = asked;
    let texts = [
        a.namespace,
        a.verb,
        a.group,
        a.version,
        a.resource,
        a.subresource,
        a.name,
        a.path.unwrap_or(""),
    ];
    texts.map(str::len).iter().sum::<usize>() < KEPT_LEN_MAX
}

fn read(status: &Value) -> Authorization {
    let reason = status["reason"].as_str().unwrap_or("").to_owned();
    let (opinion, error) = match (status["denied"] == true, status["allowed"] == true) {
        (true, true) => {
            (Opinion::Deny, "webhook subject access review returned both allow and deny response")
        }
        (true, false) => (Opinion::Deny, ""),
        (false, true) => (Opinion::Allow, ""),
        (false, false) => (Opinion::None, ""),
    };
    Authorization::new(opinion, reason, error.to_owned())
}
