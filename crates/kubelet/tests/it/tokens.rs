//! Callers of the node API without a certificate: their tokens and rights are the API server's to tell.

use client::Client;
use kubelet::{ApiReviews, Authorizer, NodeUser};
use std::sync::Arc;

use crate::api::FakeApi;

fn reviews() -> (FakeApi, ApiReviews) {
    let api = FakeApi::new();
    let reviews = ApiReviews::new(Client::new(Arc::new(api.clone())), "n1");
    (api, reviews)
}

#[tokio::test(start_paused = true)]
async fn tokens_are_reviewed_and_answers_remembered_for_a_while() {
    let (api, reviews) = reviews();
    let user = reviews.authenticate("good").await.unwrap();
    assert_eq!(
        (&*user.name, &*user.groups),
        ("prometheus", &["system:authenticated".to_owned()][..])
    );
    reviews.authenticate("good").await.unwrap();
    assert_eq!(api.reviews(), 1);
    for _ in 0..3 {
        assert_eq!(reviews.authenticate("bad").await, None);
    }
    assert_eq!(api.reviews(), 2, "a refusal is remembered too");
    assert_eq!(reviews.authenticate("").await, None);
    assert_eq!(reviews.authenticate(&"x".repeat(1 << 20)).await, None);
    assert_eq!(api.reviews(), 2, "what cannot be a token is not asked for");
    tokio::time::advance(std::time::Duration::from_secs(121)).await;
    reviews.authenticate("good").await.unwrap();
    assert_eq!(api.reviews(), 3);
}

#[tokio::test(start_paused = true)]
async fn one_subresource_that_is_allowed_is_enough() {
    let (api, reviews) = reviews();
    let user = NodeUser { name: "prometheus".into(), ..NodeUser::default() };
    assert!(reviews.allow(&user, "get", &["metrics"]).await);
    assert!(reviews.allow(&user, "get", &["healthz", "proxy"]).await);
    assert!(!reviews.allow(&user, "get", &["proxy"]).await);
    assert!(!reviews.allow(&user, "create", &["log"]).await);
    let asked = api.reviews();
    assert!(reviews.allow(&user, "get", &["metrics"]).await);
    assert_eq!(api.reviews(), asked);
    let other = NodeUser { name: "other".into(), ..NodeUser::default() };
    assert!(!reviews.allow(&other, "get", &["metrics"]).await, "remembered for each user");
    let admin = NodeUser { groups: vec!["system:masters".into()], ..other };
    assert!(reviews.allow(&admin, "get", &["proxy"]).await);
}
