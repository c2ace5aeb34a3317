//! KMS v2 providers: the seed and its key, and providers that stall, lie, go away and rotate.

use std::collections::BTreeMap;
use std::time::Duration;

use encryption::Encryption;
use store::Transformer as _;
use tasks::Tasks;

use crate::provider::Provider;
use crate::{KEY, at, entry, file, is_stale, opened, sealed, secrets, value};

/// The encryption of secrets by this provider.
async fn by(provider: &Provider) -> Encryption {
    secrets(&provider.config("kms")).await
}

/// Lets time pass for the code under test, while nothing is under way.
async fn pass(time: Duration) {
    // Tasks that were just started come to their first wait.
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

/// A fresh answer of the provider.
async fn fresh_health(encryption: &Encryption) -> Result<(), String> {
    pass(Duration::from_secs(21)).await;
    encryption.health().await
}

/// The provider is there again; a look that began before may still fail.
async fn recovered(encryption: &Encryption) -> bool {
    for _ in 0..10 {
        if fresh_health(encryption).await.is_ok() {
            return true;
        }
    }
    false
}

#[tokio::test]
async fn one_seed_serves_all_values_and_none_asks_the_provider() {
    let provider = Provider::start();
    let encryption = by(&provider).await;
    assert_eq!((provider.calls("Status"), provider.calls("Encrypt")), (1, 1));
    let mut stored = Vec::new();
    for count in 0..10_u8 {
        let kept = sealed(&encryption, KEY, &[count]);
        assert!(kept.starts_with(b"k8s:enc:kms:v2:kms:"));
        assert!(!stored.contains(&kept));
        stored.push(kept);
    }
    for (count, kept) in (0..10_u8).zip(&stored) {
        assert_eq!(value(&encryption, KEY, kept).await, Ok(vec![count]));
        assert!(!is_stale(&encryption, kept).await);
    }
    assert!(value(&encryption, "/registry/secrets/ns/other", &stored[0]).await.is_err());
    assert_eq!((provider.calls("Encrypt"), provider.calls("Decrypt")), (1, 0));
    // Another server asks once, for all values of the seed.
    let other = by(&provider).await;
    for (count, kept) in (0..10_u8).zip(&stored) {
        assert_eq!(value(&other, KEY, kept).await, Ok(vec![count]));
        assert!(!is_stale(&other, kept).await, "another seed under the same key is as good");
    }
    assert_eq!((provider.calls("Encrypt"), provider.calls("Decrypt")), (2, 1));
    let text = other.metrics_text();
    for line in [
        "apiserver_storage_envelope_transformation_cache_misses_total 1\n",
        "apiserver_envelope_encryption_dek_source_cache_size{provider_name=\"kms\"} 2\n",
        "grpc_status_code=\"OK\",method_name=\"/v2.KeyManagementService/Decrypt\",provider_name=\"kms\"} 1\n",
        "provider_name=\"kms\",transformation_type=\"from_storage\"} 20\n",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[tokio::test]
async fn the_stored_form_is_the_envelope_of_upstream() {
    let provider = Provider::start();
    let encryption = by(&provider).await;
    let kept = sealed(&encryption, KEY, b"value");
    let mut rest = kept.strip_prefix(b"k8s:enc:kms:v2:kms:").expect("the prefix");
    let mut fields = BTreeMap::new();
    while let Some((tag, tail)) = rest.split_first() {
        let (length, tail) = tail.split_first().expect("a length, or a number");
        match tag & 7 {
            0 => {
                fields.insert(tag >> 3, vec![*length]);
                rest = tail;
            }
            _ => {
                let (body, tail) = tail.split_at(usize::from(*length));
                fields.insert(tag >> 3, body.to_vec());
                rest = tail;
            }
        }
    }
    // 32 random bytes, a nonce, the value, a tag.
    assert_eq!(fields[&1].len(), 32 + 12 + 5 + 16);
    assert_eq!(fields[&2], b"1");
    assert_eq!(fields[&3].len(), 2 + 32, "the provider's form of 32 bytes");
    assert_eq!(fields[&4], b"\x0a\x1aversion.encryption.example\x12\x011");
    assert_eq!(fields[&5], [1], "a seed, of which keys are derived");
}

#[tokio::test]
async fn another_key_makes_another_seed_and_stale_values() {
    let provider = Provider::start();
    let encryption = by(&provider).await;
    let old = sealed(&encryption, KEY, b"v");
    provider.change(|now| now.key_id = "2".into());
    assert!(!is_stale(&encryption, &old).await, "nobody has told it yet");
    assert_eq!(fresh_health(&encryption).await, Ok(()));
    assert!(is_stale(&encryption, &old).await);
    let new = sealed(&encryption, KEY, b"v");
    assert!(!is_stale(&encryption, &new).await);
    assert_eq!(value(&encryption, KEY, &old).await.as_deref(), Ok(&b"v"[..]), "both are read");
    assert_eq!(provider.calls("Decrypt"), 0);
}

#[tokio::test]
async fn the_background_look_finds_another_key() {
    let provider = Provider::start();
    let encryption = by(&provider).await;
    let old = sealed(&encryption, KEY, b"v");
    provider.change(|now| now.key_id = "2".into());
    pass(Duration::from_secs(61)).await;
    // Its look is under way; it ends with the state in force.
    let rotated = async {
        while !is_stale(&encryption, &old).await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), rotated).await.expect("it rotated");
}

#[tokio::test]
async fn a_provider_that_is_not_there_yet_is_waited_for_in_the_background() {
    let mut provider = Provider::stopped();
    let encryption = by(&provider).await;
    let told = encryption.health().await.expect_err("nobody listens");
    let expected = "kms-provider-0: failed to perform status section of the healthz check for KMS Provider kms, \
                    error: rpc error: code = DeadlineExceeded desc = context deadline exceeded";
    assert_eq!(told, expected);
    let refused = encryption.transform_to_storage(at(KEY), b"v".to_vec());
    assert_eq!(refused.expect_err("no seed"), "got unexpected nil transformer");
    provider.listen();
    assert!(recovered(&encryption).await);
    assert_eq!(value(&encryption, KEY, &sealed(&encryption, KEY, b"v")).await, Ok(b"v".to_vec()));
}

#[tokio::test]
async fn a_provider_that_goes_away_is_done_without_for_three_minutes() {
    let mut provider = Provider::start();
    let encryption = by(&provider).await;
    let kept = sealed(&encryption, KEY, b"v");
    provider.stop().await;
    pass(Duration::from_secs(170)).await;
    assert!(encryption.health().await.is_err());
    assert!(
        encryption.transform_to_storage(at(KEY), b"v".to_vec()).is_ok(),
        "the seed still serves"
    );
    pass(Duration::from_secs(11)).await;
    let refused = encryption.transform_to_storage(at(KEY), b"v".to_vec()).expect_err("expired");
    assert!(
        refused.starts_with("encryptedDEKSource with keyID hash \"sha256:6b86b273"),
        "{refused}"
    );
    assert_eq!(value(&encryption, KEY, &kept).await, Ok(b"v".to_vec()), "reads need no provider");
    provider.listen();
    assert!(recovered(&encryption).await);
    assert!(encryption.transform_to_storage(at(KEY), b"v".to_vec()).is_ok());
    assert_eq!(provider.calls("Encrypt"), 1, "the same key goes on with the same seed");
}

#[tokio::test]
async fn a_provider_that_stalls_is_given_up_after_its_deadline() {
    let provider = Provider::start();
    let stored = sealed(&by(&provider).await, KEY, b"v");
    let encryption = by(&provider).await;
    provider.change(|now| now.stalls = true);
    let refused = value(&encryption, KEY, &stored).await.expect_err("no answer");
    let expected = "failed to decrypt DEK, error: rpc error: code = DeadlineExceeded desc = context deadline \
                    exceeded";
    assert_eq!(refused, expected);
    // The next value does not wait again.
    let calls = provider.calls("Decrypt");
    assert_eq!(value(&encryption, KEY, &stored).await.expect_err("as before"), expected);
    assert_eq!(provider.calls("Decrypt"), calls);
    provider.change(|now| now.stalls = false);
    pass(Duration::from_secs(4)).await;
    assert_eq!(value(&encryption, KEY, &stored).await, Ok(b"v".to_vec()));
}

#[tokio::test]
async fn a_provider_that_refuses_is_quoted() {
    let provider = Provider::start();
    let stored = sealed(&by(&provider).await, KEY, b"v");
    let encryption = by(&provider).await;
    provider.change(|now| now.refuses = Some((7, "not you")));
    let refused = opened(&encryption, KEY, &stored).await.expect_err("refused");
    assert_eq!(
        refused,
        "failed to decrypt DEK, error: rpc error: code = PermissionDenied desc = not you"
    );
    let text = encryption.metrics_text();
    assert!(text.contains("grpc_status_code=\"PermissionDenied\""), "{text}");
}

#[tokio::test]
async fn providers_that_lie_are_not_believed() {
    /// Changes one thing, and tells what is said of it.
    type Lie = (fn(&mut crate::provider::Behaviour), &'static str);
    let lies: [Lie; 9] = [
        (|now| now.healthz = "so so".into(), "got unexpected healthz status: so so"),
        (|now| now.version = "v1".into(), "expected KMSv2 API version v2, got v1"),
        (
            |now| now.version = "v2beta1".into(),
            "KMSv2 API version should not change after the initial status response version v2, got v2beta1",
        ),
        (|now| now.key_id = String::new(), "got invalid KMSv2 KeyID hash \"\": keyID is empty"),
        (
            |now| now.key_id = "x".repeat(1025),
            "keyID is 1025 bytes, which exceeds the max size of 1024",
        ),
        (
            |now| {
                now.key_id = "2".into();
                now.encrypts_with = Some("3".into());
            },
            "errGen=<nil>, statusKeyIDHash=\"sha256:d4735e3a265e16eee03f59718b9b5d03019c07d8b6c51f90da3a666eec13ab35\", \
             encryptKeyIDHash=\"sha256:4e07408562bedb8b60ce05c1decfe3ad16b72230967de01f640b7e4729b49fce\"",
        ),
        (
            |now| {
                now.key_id = "2".into();
                now.ciphertext = Some(1025);
            },
            "encrypted DEK source is 1025 bytes, which exceeds the max size of 1024",
        ),
        (
            |now| {
                now.key_id = "2".into();
                now.annotations = BTreeMap::from([("unqualified".into(), Vec::new())]);
            },
            "annotations: Invalid value: \"unqualified\": should be a domain with at least two segments separated by \
             dots",
        ),
        (
            |now| {
                now.key_id = "2".into();
                now.annotations = BTreeMap::from([("a.example".into(), vec![0; 32 * 1024])]);
            },
            "total size of annotations is 32777, which exceeds the max size of 32768",
        ),
    ];
    for (lie, expected) in lies {
        let provider = Provider::start();
        let encryption = by(&provider).await;
        let before = sealed(&encryption, KEY, b"v");
        provider.change(lie);
        let told = fresh_health(&encryption).await.expect_err(expected);
        assert!(
            told.starts_with("kms-provider-0: kmsv2 Provider kms is not healthy, error: "),
            "{told}"
        );
        assert!(told.contains(expected), "{told}");
        let after = sealed(&encryption, KEY, b"v");
        assert!(!is_stale(&encryption, &before).await && !is_stale(&encryption, &after).await);
    }
}

#[tokio::test]
async fn version_one_is_refused_by_name() {
    let kms = "{kms: {name: k, endpoint: 'unix:///k'}}";
    let config = file(&format!("[{}]", entry("secrets", kms)));
    let made = Encryption::new(&config, false, "server", &Tasks::new()).await;
    assert_eq!(
        made.expect_err("refused").to_string(),
        "error while building transformers: KMSv1 is deprecated and will only receive security updates going \
         forward. Use KMSv2 instead.  Set --feature-gates=KMSv1=true to use the deprecated KMSv1 feature."
    );
}

#[tokio::test]
async fn damaged_values_are_refused() {
    let provider = Provider::start();
    let encryption = by(&provider).await;
    let kept = sealed(&encryption, KEY, b"value");
    let prefix = b"k8s:enc:kms:v2:kms:".len();
    for at in prefix..kept.len() {
        let mut damaged = kept.clone();
        damaged[at] ^= 1;
        let outcome = value(&encryption, KEY, &damaged).await;
        // The provider's annotations are not authenticated by upstream either, but tell seeds apart.
        assert_ne!(outcome.as_deref(), Ok(&b"other"[..]));
        assert!(outcome.as_ref().map_or(true, |value| value == b"value"), "{at}: {outcome:?}");
    }
    for end in prefix..kept.len() {
        assert!(value(&encryption, KEY, &kept[..end]).await.is_err(), "{end}");
    }
    let other = secrets(&provider.config("other")).await;
    let refused = value(&other, KEY, &kept).await.expect_err("of another provider");
    assert_eq!(refused, "no matching prefix found");
}
