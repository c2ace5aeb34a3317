//! A provider of the test's own: documents, keys that rotate, tokens.

use std::pin::Pin;
use std::sync::Mutex;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};

use super::*;
use crate::authn::Configuration;

const ISSUER: &str = "https://issuer.test";

struct Provider {
    /// How long its keys take.
    delay: std::time::Duration,
    keys: Mutex<Vec<(String, EcdsaKeyPair)>>,
    asked: Mutex<u32>,
    issuer: Mutex<String>,
}

fn key_pair() -> EcdsaKeyPair {
    let random = SystemRandom::new();
    let document =
        EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("a key");
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random)
        .expect("a key")
}

impl Provider {
    fn new() -> Provider {
        let keys = Mutex::new(vec![("one".to_owned(), key_pair())]);
        Provider {
            delay: std::time::Duration::ZERO,
            keys,
            asked: Mutex::default(),
            issuer: Mutex::new(ISSUER.to_owned()),
        }
    }

    fn sign(&self, claims: &Value) -> String {
        let keys = self.keys.lock().expect("no panic");
        let (id, key) = keys.last().expect("a key");
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(&json!({"alg": "ES256", "kid": id})), part(claims));
        let signature = key.sign(&SystemRandom::new(), message.as_bytes()).expect("signed");
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }
}

impl Fetch for Provider {
    fn get<'a>(
        &'a self,
        url: &'a str,
        _: &'a str,
    ) -> Pin<Box<dyn Future<Output = Result<Vec<u8>, String>> + Send + 'a>> {
        let jwk = |(id, key): &(String, EcdsaKeyPair)| {
            let (x, y) = key.public_key().as_ref()[1..].split_at(32);
            let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
            json!({"kty": "EC", "crv": "P-256", "kid": id, "x": part(x), "y": part(y)})
        };
        let answer = match url {
            "https://issuer.test/.well-known/openid-configuration" | "https://elsewhere.test/d" => {
                let issuer = self.issuer.lock().expect("no panic").clone();
                Ok(json!({"issuer": issuer, "jwks_uri": "https://issuer.test/keys"}))
            }
            "https://issuer.test/keys" => {
                *self.asked.lock().expect("no panic") += 1;
                let keys = self.keys.lock().expect("no panic");
                Ok(json!({"keys": keys.iter().map(jwk).collect::<Vec<_>>()}))
            }
            other => Err(format!("nothing at {other}")),
        };
        let delay = if url.ends_with("/keys") { self.delay } else { std::time::Duration::ZERO };
        Box::pin(async move {
            tokio::time::sleep(delay).await;
            answer.map(|tree: Value| tree.to_string().into_bytes())
        })
    }
}

fn issuer(rest: &str) -> Issuer {
    let text = format!(
        "{{apiVersion: apiserver.config.k8s.io/v1, kind: AuthenticationConfiguration, jwt: \
         [{{issuer: {{url: '{ISSUER}', audiences: [a, b], audienceMatchPolicy: MatchAny}}, {rest}}}]}}"
    );
    Configuration::parse(&text, &[]).expect("in order").issuers.remove(0)
}

fn claims() -> Value {
    json!({"iss": ISSUER, "aud": "b", "exp": 2_000, "sub": "jane", "email": "j@x", "groups": ["g", "h"], "jti": "7"})
}

fn with(key: &str, value: impl Into<Value>) -> Value {
    let mut claims = claims();
    claims[key] = value.into();
    claims
}

async fn asked(issuer: &Issuer, provider: &Provider, token: &str) -> Result<Option<User>, String> {
    issuer.user(provider, token, Timestamp::from_second(1_000).expect("a time")).await
}

const SIMPLE: &str = "claimMappings: {username: {claim: sub, prefix: 'oidc:'}, groups: {claim: groups, prefix: 'o:'}}";

#[tokio::test]
async fn a_token_becomes_a_user() {
    let provider = Provider::new();
    let issuer = issuer(SIMPLE);
    let token = provider.sign(&claims());
    let early = asked(&issuer, &provider, &token).await.expect_err("nothing is known yet");
    assert!(early.contains("not initialized"), "{early}");
    issuer.discover(&provider).await;
    let user = asked(&issuer, &provider, &token).await.expect("accepted").expect("of this issuer");
    assert_eq!(
        (user.name.as_str(), user.groups),
        ("oidc:jane", vec!["o:g".to_owned(), "o:h".to_owned()])
    );
    assert_eq!(user.extra["authentication.kubernetes.io/credential-id"], ["JTI=7"]);
    for other in [provider.sign(&with("iss", "https://other.test")), "a.b".into(), "abc".into()] {
        assert_eq!(asked(&issuer, &provider, &other).await, Ok(None), "{other}");
    }
}

#[tokio::test]
async fn what_is_not_in_order_is_refused() {
    let provider = Provider::new();
    let issuer = issuer(SIMPLE);
    issuer.discover(&provider).await;
    let mut forged = provider.sign(&claims());
    forged.replace_range(forged.len() - 8..forged.len() - 4, "AAAA");
    let none = {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}.", part(&json!({"alg": "none"})), part(&claims()))
    };
    for (token, why) in [
        (provider.sign(&with("exp", 999)), "token is expired"),
        (provider.sign(&with("exp", Value::Null)), "token is expired"),
        (provider.sign(&with("nbf", 1_301)), "before the nbf"),
        (provider.sign(&with("aud", json!(["c"]))), "expected audience"),
        (provider.sign(&with("sub", 3)), "parse username claims"),
        (provider.sign(&with("groups", 3)), "parse groups claim"),
        (forged, "failed to verify id token signature"),
        (none, "unexpected signature algorithm"),
    ] {
        let told = asked(&issuer, &provider, &token).await.expect_err(why);
        assert!(told.contains(why), "{told}");
    }
    assert!(
        asked(&issuer, &provider, &provider.sign(&with("nbf", 1_300))).await.is_ok(),
        "clocks differ"
    );
}

#[tokio::test(start_paused = true)]
async fn keys_that_rotate_are_found_and_forged_tokens_cost_one_look() {
    let provider = Provider::new();
    let issuer = issuer(SIMPLE);
    issuer.discover(&provider).await;
    let old = provider.sign(&claims());
    provider.keys.lock().expect("no panic").push(("two".into(), key_pair()));
    assert!(asked(&issuer, &provider, &provider.sign(&claims())).await.is_ok());
    assert!(asked(&issuer, &provider, &old).await.is_ok(), "the set has both");
    provider.keys.lock().expect("no panic").push(("three".into(), key_pair()));
    for _ in 0..3 {
        // Too early for another look.
        assert!(asked(&issuer, &provider, &provider.sign(&claims())).await.is_err());
    }
    assert_eq!(*provider.asked.lock().expect("no panic"), 2);
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert!(asked(&issuer, &provider, &provider.sign(&claims())).await.is_ok());
}

/// Forged tokens do not line up before an issuer that is slow.
#[tokio::test(start_paused = true)]
async fn a_slow_issuer_is_waited_for_once() {
    let mut provider = Provider::new();
    let issuer = issuer(SIMPLE);
    issuer.discover(&provider).await;
    provider.delay = std::time::Duration::from_secs(30);
    provider.keys.lock().expect("no panic").push(("two".into(), key_pair()));
    let token = provider.sign(&claims());
    provider.keys.lock().expect("no panic").pop();
    let begun = tokio::time::Instant::now();
    let all = [(); 5].map(|()| asked(&issuer, &provider, &token));
    let [a, b, c, d, e] = all;
    let told = tokio::join!(a, b, c, d, e);
    assert!(told.0.is_err() && told.4.is_err());
    assert_eq!(begun.elapsed(), std::time::Duration::from_secs(30));
}

#[tokio::test]
async fn an_issuer_must_be_who_it_says() {
    let provider = Provider::new();
    *provider.issuer.lock().expect("no panic") = "https://other.test".into();
    let issuer = issuer(SIMPLE);
    issuer.discover(&provider).await;
    assert!(!issuer.is_found());
}

#[tokio::test]
async fn expressions_map_and_check() {
    let provider = Provider::new();
    let issuer = issuer(
        "claimMappings: {username: {expression: '\"x:\" + claims.sub'}, groups: {expression: 'claims.groups + [\"\"]'}, \
         uid: {expression: claims.jti}, extra: [{key: a.io/b, valueExpression: 'claims.?mail.orValue(\"none\")'}]}, \
         claimValidationRules: [{claim: hd, requiredValue: corp}, {expression: 'claims.exp - 1000 <= 5000', message: too long}], \
         userValidationRules: [{expression: '!user.username.startsWith(\"x:system\")', message: reserved}]",
    );
    issuer.discover(&provider).await;
    let token = provider.sign(&with("hd", "corp"));
    let user = asked(&issuer, &provider, &token).await.expect("accepted").expect("of this issuer");
    assert_eq!((user.name.as_str(), user.uid.as_str()), ("x:jane", "7"));
    assert_eq!(user.groups, ["g", "h"], "blank groups are none");
    assert_eq!(user.extra["a.io/b"], ["none"]);

    let mut long = with("hd", "corp");
    long["exp"] = 9_000.into();
    let mut reserved = with("hd", "corp");
    reserved["sub"] = "system:admin".into();
    for (claims, why) in [
        (claims(), "required claim hd not present in ID token"),
        (with("hd", "other"), "required claim hd value does not match. Got = other, want = corp"),
        (long, "validation expression 'claims.exp - 1000 <= 5000' failed: too long"),
        (reserved, "failed: reserved"),
    ] {
        let told = asked(&issuer, &provider, &provider.sign(&claims)).await.expect_err(why);
        assert!(told.contains(why), "{told}");
    }
}

#[tokio::test]
async fn addresses_must_be_verified() {
    let provider = Provider::new();
    let issuer = issuer("claimMappings: {username: {claim: email, prefix: ''}}");
    issuer.discover(&provider).await;
    assert!(asked(&issuer, &provider, &provider.sign(&claims())).await.is_ok());
    let told = asked(&issuer, &provider, &provider.sign(&with("email_verified", false))).await;
    assert_eq!(told, Err("oidc: email not verified".into()));
}
