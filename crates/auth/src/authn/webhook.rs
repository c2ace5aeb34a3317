//! Tokens that another server knows: it is asked by a TokenReview, and its answers are kept for a while
//! (apiserver `plugin/pkg/authenticator/token/webhook`).

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ring::digest::{SHA256, digest};
use serde_json::Value;
use tokio::time::Instant;

use super::Known;
use crate::user::User;

/// Asks the server.
pub trait TokenReviews: Send + Sync {
    /// The `status` of a TokenReview of these, or why there is none. Bounded in time by whoever implements
    /// this.
    fn review<'a>(
        &'a self,
        token: &'a str,
        audiences: &'a [String],
    ) -> Pin<Box<dyn Future<Output = Result<Value, String>> + Send + 'a>>;
}

type Answer = Result<Option<Known>, String>;

/// Answers that are kept at most; the oldest goes first.
const KEPT_MAX: usize = 4096;

/// The server of `--authentication-token-webhook-config-file`.
pub(super) struct Webhook {
    reviews: Arc<dyn TokenReviews>,
    /// How long an answer is kept.
    life: Duration,
    kept: Mutex<HashMap<[u8; 32], (Instant, Answer)>>,
}

impl Webhook {
    pub(super) fn new(reviews: Arc<dyn TokenReviews>, life: Duration) -> Webhook {
        Webhook { reviews, life, kept: Mutex::default() }
    }

    /// Whose a token is that is meant for one of `asked`; nobody's, when the server does not know it.
    pub(super) async fn token(&self, token: &str, asked: &[String]) -> Answer {
        let key = key(token, asked);
        if let Some(answer) = self.find(key) {
            return answer;
        }
        // That the server could not be asked is no answer.
        let status = self.reviews.review(token, asked).await?;
        let answer = read(&status, asked);
        self.keep(key, answer.clone());
        answer
    }

    fn find(&self, key: [u8; 32]) -> Option<Answer> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, answer) = kept.get(&key)?;
        (at.elapsed() < self.life).then(|| answer.clone())
    }

    fn keep(&self, key: [u8; 32], answer: Answer) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT_MAX {
            kept.retain(|_, (at, _)| at.elapsed() < self.life);
        }
        if kept.len() >= KEPT_MAX {
            let oldest = kept.iter().min_by_key(|(_, (at, _))| *at).map(|(key, _)| *key);
            oldest.iter().for_each(|key| drop(kept.remove(key)));
        }
        kept.insert(key, (Instant::now(), answer));
    }
}

/// Tokens themselves are not kept.
fn key(token: &str, asked: &[String]) -> [u8; 32] {
    let mut all = token.as_bytes().to_vec();
    for audience in asked {
        all.push(0);
        all.extend_from_slice(audience.as_bytes());
    }
    let mut key = [0; 32];
    key.copy_from_slice(digest(&SHA256, &all).as_ref());
    key
}

fn read(status: &Value, asked: &[String]) -> Answer {
    if status["authenticated"] != true {
        return match status["error"].as_str().unwrap_or("") {
            "" => Ok(None),
            why => Err(why.to_owned()),
        };
    }
    let texts = |value: &Value| -> Vec<String> {
        value
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|t| t.as_str().map(str::to_owned))
            .collect()
    };
    // A server that says nothing of audiences knows nothing of them: all are meant.
    let told = texts(&status["audiences"]);
    let audiences: Vec<String> =
        asked.iter().filter(|one| told.is_empty() || told.contains(one)).cloned().collect();
    if audiences.is_empty() {
        return Ok(None);
    }
    let user = &status["user"];
    let extra = user["extra"].as_object().into_iter().flatten();
    let user = User {
        name: user["username"].as_str().unwrap_or("").to_owned(),
        uid: user["uid"].as_str().unwrap_or("").to_owned(),
        groups: texts(&user["groups"]),
        extra: extra.map(|(key, values)| (key.clone(), texts(values))).collect(),
    };
    Ok(Some(Known { user, audiences, legacy: None }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[derive(Default)]
    struct Server(Mutex<u32>);

    impl TokenReviews for Server {
        fn review<'a>(
            &'a self,
            token: &'a str,
            _: &'a [String],
        ) -> Pin<Box<dyn Future<Output = Result<Value, String>> + Send + 'a>> {
            *self.0.lock().expect("no panic") += 1;
            let answer = match token {
                "jane" => {
                    Ok(json!({"authenticated": true, "user": {"username": "jane", "groups": ["g"],
                    "uid": "7", "extra": {"k": ["v"]}}}))
                }
                "vault" => Ok(
                    json!({"authenticated": true, "audiences": ["vault"], "user": {"username": "v"}}),
                ),
                "bad" => Ok(json!({"authenticated": false, "error": "bad token"})),
                "down" => Err("connection refused".to_owned()),
                _ => Ok(json!({"authenticated": false})),
            };
            Box::pin(async move { answer })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn answers_are_read_and_kept_for_a_while() {
        let server = Arc::new(Server::default());
        let webhook = Webhook::new(server.clone(), Duration::from_secs(120));
        let api = ["api".to_owned()];
        let ask = async |token: &str| {
            webhook.token(token, &api).await.map(|known| known.map(|k| k.user.name))
        };
        assert_eq!(ask("jane").await, Ok(Some("jane".into())));
        assert_eq!(ask("jane").await, Ok(Some("jane".into())));
        assert_eq!(*server.0.lock().expect("no panic"), 1);
        tokio::time::sleep(Duration::from_secs(120)).await;
        assert_eq!(ask("jane").await, Ok(Some("jane".into())));
        assert_eq!(*server.0.lock().expect("no panic"), 2);
        assert_eq!(ask("vault").await, Ok(None), "meant for others");
        assert_eq!(ask("bad").await, Err("bad token".into()));
        assert_eq!(ask("unknown").await, Ok(None));
        for _ in 0..2 {
            assert_eq!(ask("down").await, Err("connection refused".into()));
        }
        assert_eq!(*server.0.lock().expect("no panic"), 7, "a server that is down is asked again");
        let many = webhook.token("vault", &["vault".into(), "api".into()]).await.expect("known");
        assert_eq!(many.map(|known| known.audiences), Some(vec!["vault".to_owned()]));
    }

    #[tokio::test(start_paused = true)]
    async fn answers_do_not_pile_up() {
        let webhook = Webhook::new(Arc::new(Server::default()), Duration::from_secs(120));
        for n in 0..KEPT_MAX + 10 {
            assert_eq!(
                webhook.token(&n.to_string(), &["api".into()]).await.map(|k| k.is_some()),
                Ok(false)
            );
        }
        assert_eq!(webhook.kept.lock().expect("no panic").len(), KEPT_MAX);
    }
}
