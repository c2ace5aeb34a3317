//! The chain, with a server that is asked.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::objects::{Collection, Objects};

struct Nothing;

impl Collection for Nothing {
    fn get(&self, _: &str) -> Option<Arc<api::Object>> {
        None
    }

    fn list(&self, _: &str, _: &dyn Fn(&api::Object) -> bool) -> Vec<Arc<api::Object>> {
        Vec::new()
    }

    fn list_by(&self, _: (&str, &str), _: &str) -> Vec<Arc<api::Object>> {
        Vec::new()
    }

    fn last_change(&self) -> u64 {
        0
    }
}

impl Objects for Nothing {
    fn of(&self, _: &str, _: &str) -> Option<Arc<dyn Collection>> {
        Some(Arc::new(Nothing))
    }
}

/// Answers in order; the last one for ever. What it was asked is kept.
struct Server {
    answers: Mutex<VecDeque<Result<Value, ReviewFailure>>>,
    asked: Mutex<Vec<Value>>,
}

impl Server {
    fn new(answers: impl IntoIterator<Item = Result<Value, ReviewFailure>>) -> Arc<Server> {
        let answers = Mutex::new(answers.into_iter().collect());
        Arc::new(Server { answers, asked: Mutex::default() })
    }

    fn count(&self) -> usize {
        self.asked.lock().expect("no panic").len()
    }
}

impl SubjectAccessReviews for Server {
    fn review<'a>(
        &'a self,
        spec: &'a Value,
    ) -> Pin<Box<dyn Future<Output = Result<Value, ReviewFailure>> + Send + 'a>> {
        self.asked.lock().expect("no panic").push(spec.clone());
        let mut answers = self.answers.lock().expect("no panic");
        let next = match answers.len() {
            1 => answers.front().cloned(),
            _ => answers.pop_front(),
        };
        Box::pin(async move { next.expect("an answer") })
    }
}

fn failure(is_passing: bool) -> Result<Value, ReviewFailure> {
    Err(ReviewFailure { message: "no route".into(), is_passing })
}

fn webhook(server: &Arc<Server>, denies_on_error: bool) -> Mode {
    let lives = (Duration::from_secs(300), Duration::from_secs(30));
    let settings = WebhookSettings::of_flags("/none".into(), "v1", lives);
    let settings = WebhookSettings { denies_on_error, ..settings };
    Mode::Webhook(Arc::new(ReviewWebhook::new(settings, server.clone())))
}

fn authorizer(modes: Vec<Mode>) -> Authorizer {
    Authorizer::new(Arc::new(Nothing), AuthorizationModes(modes))
}

const GET: Attributes<'static> = Attributes {
    verb: "get",
    group: "",
    version: "v1",
    resource: "pods",
    subresource: "",
    namespace: "default",
    name: "a",
    path: None,
    fields: None,
    labels: None,
};

#[tokio::test(start_paused = true)]
async fn the_first_that_allows_or_denies_decides() {
    let allows = Server::new([Ok(json!({"allowed": true, "reason": "she may"}))]);
    let denies = Server::new([Ok(json!({"allowed": false, "denied": true, "reason": "never"}))]);
    let knows_nothing = Server::new([Ok(json!({"allowed": false, "reason": "who?"}))]);
    let both = Server::new([Ok(json!({"allowed": true, "denied": true}))]);
    let jane = User::new("jane", &[]);
    let ask = async |modes| {
        let answer = authorizer(modes).authorize(&jane, &GET).await;
        (answer.opinion, answer.reason, answer.error)
    };
    let none = String::new;
    let wanted = (Opinion::Allow, "she may".to_owned(), none());
    assert_eq!(ask(vec![webhook(&knows_nothing, false), webhook(&allows, false)]).await, wanted);
    let wanted = (Opinion::Deny, "never".to_owned(), none());
    assert_eq!(ask(vec![webhook(&denies, false), Mode::AlwaysAllow]).await, wanted);
    assert_eq!(
        ask(vec![Mode::AlwaysAllow, webhook(&denies, false)]).await,
        (Opinion::Allow, none(), none())
    );
    let wanted = (Opinion::None, "who?\nEverything is forbidden.".to_owned(), none());
    assert_eq!(ask(vec![webhook(&knows_nothing, false), Mode::AlwaysDeny]).await, wanted);
    let (opinion, _, error) = ask(vec![webhook(&both, false)]).await;
    assert_eq!(opinion, Opinion::Deny);
    assert!(error.contains("both allow and deny"));
    let masters = User::system_masters("root");
    let free = authorizer(vec![webhook(&denies, false)]).authorize(&masters, &GET).await;
    assert!(free.is_allowed(), "nobody is asked about masters");
    assert_eq!(denies.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_cannot_be_asked_is_passed_over_or_denies() {
    let down = Server::new([failure(false)]);
    let jane = User::new("jane", &[]);
    let ask = async |modes| authorizer(modes).authorize(&jane, &GET).await;
    assert!(ask(vec![webhook(&down, false), Mode::AlwaysAllow]).await.is_allowed());
    let denied = ask(vec![webhook(&down, true), Mode::AlwaysAllow]).await;
    assert_eq!((denied.opinion, denied.error.as_str()), (Opinion::Deny, "no route"));
    let unknown = ask(vec![webhook(&down, false)]).await;
    assert_eq!((unknown.opinion, unknown.error.as_str()), (Opinion::None, "no route"));
    assert_eq!(down.count(), 3, "what will not pass is not tried again");
    let flaky = Server::new([failure(true), failure(true), Ok(json!({"allowed": true}))]);
    assert!(ask(vec![webhook(&flaky, false)]).await.is_allowed());
    assert_eq!(flaky.count(), 3);
    let stays = Server::new([failure(true)]);
    assert!(!ask(vec![webhook(&stays, false)]).await.is_allowed());
    assert_eq!(stays.count(), 5);
}

#[tokio::test(start_paused = true)]
async fn answers_are_kept_for_their_time() {
    let (allows, refuses) =
        (Server::new([Ok(json!({"allowed": true}))]), Server::new([Ok(json!({"allowed": false}))]));
    let jane = User::new("jane", &[]);
    for (server, life) in [(&allows, 300), (&refuses, 30)] {
        let authorizer = authorizer(vec![webhook(server, false)]);
        for count in [1, 1] {
            authorizer.authorize(&jane, &GET).await;
            assert_eq!(server.count(), count);
        }
        authorizer.authorize(&User::new("joe", &[]), &GET).await;
        assert_eq!(server.count(), 2, "another user is another question");
        tokio::time::sleep(Duration::from_secs(life)).await;
        authorizer.authorize(&jane, &GET).await;
        assert_eq!(server.count(), 3);
        let long = "x".repeat(10_000);
        let long = Attributes { name: &long, ..GET };
        authorizer.authorize(&jane, &long).await;
        authorizer.authorize(&jane, &long).await;
        assert_eq!(server.count(), 5, "long questions are not kept");
    }
}

#[tokio::test(start_paused = true)]
async fn who_cannot_wait_asks_again_when_the_answer_is_there() {
    let server = Server::new([Ok(json!({"allowed": true})), Ok(json!({"allowed": false}))]);
    let authorizer = authorizer(vec![webhook(&server, false)]);
    let inquiry = Inquiry::new(&authorizer);
    let jane = User::new("jane", &[]);
    let mut rounds = 0;
    let done = inquiry.settle(|asked| {
        rounds += 1;
        let first = asked.check(&jane, &GET).is_ok();
        let second = Attributes { verb: "delete", ..GET };
        (first, first && asked.check(&jane, &second).is_ok())
    });
    assert_eq!(done.await, (true, false));
    assert_eq!((rounds, server.count()), (3, 2));
    // Nothing is asked twice, and nobody is asked when no server has to be.
    let plain = Authorizer::new(Arc::new(Nothing), AuthorizationModes(vec![Mode::AlwaysDeny]));
    let inquiry = Inquiry::new(&plain);
    let refused = inquiry.check(&jane, &GET).expect_err("refused");
    assert!(!inquiry.has_missed());
    assert_eq!(
        refused,
        "User \"jane\" cannot get resource \"pods\" in API group \"\" in the namespace \"default\": Everything is forbidden."
    );
}

#[tokio::test(start_paused = true)]
async fn work_that_asks_without_end_is_ended() {
    let server = Server::new([Ok(json!({"allowed": true}))]);
    let authorizer = authorizer(vec![webhook(&server, false)]);
    let inquiry = Inquiry::new(&authorizer);
    let jane = User::new("jane", &[]);
    let mut round = 0;
    let done = inquiry.settle(|asked| {
        round += 1;
        asked.check(&jane, &Attributes { name: &round.to_string(), ..GET }).is_ok()
    });
    assert!(!done.await, "what is missed at the end is refused");
}
