//! Providers that have their keys themselves, and which of them is whose.

use crate::{KEY, OTHER, SECRET, at, entry, file, is_stale, keys, load, sealed, secrets, value};
use encryption::Encryption;
use store::Transformer as _;
use tasks::Tasks;

#[tokio::test]
async fn every_provider_writes_upstreams_prefix_and_reads_its_own() {
    let a = keys(&[("a", SECRET)]);
    let cases = [
        (format!("{{aesgcm: {a}}}"), "k8s:enc:aesgcm:v1:a:", 28),
        (format!("{{aescbc: {a}}}"), "k8s:enc:aescbc:v1:a:", 27),
        (format!("{{secretbox: {a}}}"), "k8s:enc:secretbox:v1:a:", 40),
    ];
    for (provider, prefix, overhead) in cases {
        let encryption = secrets(&provider).await;
        let kept = sealed(&encryption, KEY, b"value");
        assert!(kept.starts_with(prefix.as_bytes()), "{prefix}");
        assert_eq!(kept.len(), prefix.len() + 5 + overhead, "{prefix}");
        assert_eq!(value(&encryption, KEY, &kept).await.as_deref(), Ok(&b"value"[..]));
        let plain = value(&encryption, KEY, b"{}").await;
        assert_eq!(plain, Err("no matching prefix found".into()), "only the identity reads it");
    }
    let identity = secrets("{identity: {}}").await;
    assert_eq!(sealed(&identity, KEY, b"value"), b"value");
}

#[tokio::test]
async fn only_gcm_binds_a_value_to_its_place() {
    let a = keys(&[("a", SECRET)]);
    let encryption = secrets(&format!("{{aesgcm: {a}}}")).await;
    let moved = sealed(&encryption, "/registry/secrets/ns/other", b"value");
    assert!(value(&encryption, KEY, &moved).await.is_err(), "it is bound to its place");
    // CBC and secretbox are not, as in upstream.
    let encryption = secrets(&format!("{{secretbox: {a}}}")).await;
    let moved = sealed(&encryption, "/registry/secrets/ns/other", b"value");
    assert!(value(&encryption, KEY, &moved).await.is_ok());
}

#[tokio::test]
async fn the_first_key_writes_and_all_read() {
    let of = |all: &[(&str, &str)]| format!("{{aescbc: {}}}", keys(all));
    let old = secrets(&of(&[("old", SECRET)])).await;
    let both = secrets(&of(&[("new", OTHER), ("old", SECRET)])).await;
    let new = secrets(&of(&[("new", OTHER)])).await;
    let kept = sealed(&old, KEY, b"v");
    assert!(!is_stale(&old, &kept).await);
    assert!(is_stale(&both, &kept).await, "it is to be written anew");
    let rewritten = sealed(&both, KEY, b"v");
    assert!(rewritten.starts_with(b"k8s:enc:aescbc:v1:new:"));
    assert!(!is_stale(&both, &rewritten).await);
    assert_eq!(value(&new, KEY, &rewritten).await.as_deref(), Ok(&b"v"[..]));
    let refused = value(&new, KEY, &kept).await;
    assert_eq!(refused, Err("no matching key was found for the provided AES transformer".into()));
}

#[tokio::test]
async fn a_provider_listed_twice_is_tried_twice() {
    // Both keys have one name, as after a careless rotation.
    let old = secrets(&format!("{{aesgcm: {}}}", keys(&[("k", SECRET)]))).await;
    let both =
        format!("{{aesgcm: {}}}, {{aesgcm: {}}}", keys(&[("k", OTHER)]), keys(&[("k", SECRET)]));
    let both = secrets(&both).await;
    let kept = sealed(&old, KEY, b"v");
    assert_eq!(value(&both, KEY, &kept).await.as_deref(), Ok(&b"v"[..]));
    assert!(is_stale(&both, &kept).await);
}

#[tokio::test]
async fn from_plain_to_encrypted_and_back() {
    let aes = format!("{{aescbc: {}}}", keys(&[("a", SECRET)]));
    let to = secrets(&format!("{aes}, {{identity: {{}}}}")).await;
    assert_eq!(value(&to, KEY, b"plain").await.as_deref(), Ok(&b"plain"[..]));
    assert!(is_stale(&to, b"plain").await);
    let back = secrets(&format!("{{identity: {{}}}}, {aes}")).await;
    let kept = sealed(&to, KEY, b"v");
    assert_eq!(value(&back, KEY, &kept).await.as_deref(), Ok(&b"v"[..]));
    assert!(is_stale(&back, &kept).await);
    assert_eq!(sealed(&back, KEY, b"v"), b"v");
    // Without a provider for it, an encrypted value is refused as such.
    let none = load(&format!("[{}]", entry("configmaps", &aes))).await;
    let refused = value(&none, KEY, &kept).await;
    assert_eq!(refused, Err("identity transformer tried to read encrypted data".into()));
}

#[tokio::test]
async fn wildcards_cover_what_nothing_before_them_names() {
    let aes = |name: &str| format!("{{aesgcm: {}}}", keys(&[(name, SECRET)]));
    let config = format!(
        "[{}, {}, {}, {}]",
        entry("secrets", &aes("secrets")),
        entry("*.", &aes("core")),
        entry("*.apps", &aes("apps")),
        entry("*.*", &aes("all"))
    );
    let encryption = load(&config).await;
    let cases = [
        (KEY, "secrets"),
        ("/registry/configmaps/ns/name", "core"),
        ("/registry/services/endpoints/ns/name", "core"),
        ("/registry/events/ns/name", "core"),
        ("/registry/deployments/ns/name", "apps"),
        ("/registry/jobs/ns/name", "all"),
        ("/registry/example.com/pandas/ns/name", "all"),
    ];
    for (key, name) in cases {
        let kept = sealed(&encryption, key, b"v");
        let prefix = format!("k8s:enc:aesgcm:v1:{name}:");
        assert!(kept.starts_with(prefix.as_bytes()), "{key} with {name}");
    }
    for key in ["/registry/ranges/serviceips", "/registry/masterleases/10.0.0.1"] {
        assert_eq!(sealed(&encryption, key, b"v"), b"v", "{key} is no API object");
    }
}

#[tokio::test]
async fn an_entry_that_an_earlier_one_masks_is_refused() {
    let cases = [
        (["*.", "secrets"], "resource \"secrets\" is masked by earlier rule \"*.\""),
        (["*.*", "secrets"], "resource \"secrets\" is masked by earlier rule \"*.*\""),
        (
            ["*.apps", "deployments.apps"],
            "resource \"deployments.apps\" is masked by earlier rule \"*.apps\"",
        ),
        (["*.*", "*.apps"], "resource \"*.apps\" is masked by earlier rule \"*.*\""),
    ];
    for ([first, second], expected) in cases {
        let entries = [first, second].map(|name| entry(name, "{identity: {}}"));
        let config = file(&format!("[{}]", entries.join(", ")));
        let made = Encryption::new(&config, false, "server", &Tasks::new()).await;
        let told = made.expect_err("refused").to_string();
        assert_eq!(told, format!("error while building transformers: {expected}"));
    }
}

#[tokio::test]
async fn a_resource_named_twice_has_the_providers_of_both() {
    let aes = |name: &str, secret: &str| format!("{{aesgcm: {}}}", keys(&[(name, secret)]));
    let config = format!(
        "[{}, {}]",
        entry("secrets", &aes("a", SECRET)),
        entry("secrets", &aes("b", OTHER))
    );
    let both = load(&config).await;
    let second = secrets(&aes("b", OTHER)).await;
    let kept = sealed(&second, KEY, b"v");
    assert_eq!(value(&both, KEY, &kept).await.as_deref(), Ok(&b"v"[..]));
    assert!(sealed(&both, KEY, b"v").starts_with(b"k8s:enc:aesgcm:v1:a:"));
}

#[tokio::test]
async fn transformations_are_counted() {
    let encryption = secrets(&format!("{{aescbc: {}}}", keys(&[("a", SECRET)]))).await;
    let kept = sealed(&encryption, KEY, b"v");
    value(&encryption, KEY, &kept).await.expect("readable");
    value(&encryption, KEY, b"plain").await.expect_err("refused");
    let text = encryption.metrics_text();
    let family = "apiserver_storage_transformation_operations_total";
    for labels in [
        "resource=\"secrets\",status=\"OK\",transformation_type=\"to_storage\",transformer_prefix=\"k8s:enc:aescbc:v1:\"",
        "resource=\"secrets\",status=\"OK\",transformation_type=\"from_storage\",transformer_prefix=\"k8s:enc:aescbc:v1:\"",
        "resource=\"secrets\",status=\"unknown-non-grpc\",transformation_type=\"from_storage\",transformer_prefix=\"unknown\"",
    ] {
        assert!(text.contains(&format!("{family}{{{labels}}} 1\n")), "{labels}\nin\n{text}");
    }
    assert!(text.contains("apiserver_encryption_config_controller_last_config_info{"));
    assert!(!text.contains("process_cpu_seconds_total"), "the server tells those");
}

#[tokio::test]
async fn the_place_in_the_backend_binds_and_the_resource_decides() {
    // etcd's prefix is not /registry with --etcd-prefix.
    let encryption = secrets(&format!("{{aesgcm: {}}}", keys(&[("a", SECRET)]))).await;
    let place = store::Place { key: KEY, authenticated: "/other/secrets/ns/name" };
    let kept = encryption.transform_to_storage(place, b"v".to_vec()).expect("encrypted");
    assert!(kept.bytes.starts_with(b"k8s:enc:aesgcm:v1:a:"));
    assert!(encryption.transform_from_storage(at(KEY), kept.bytes.clone()).is_err());
    assert_eq!(encryption.transform_from_storage(place, kept.bytes).expect("opened").value, b"v");
}
