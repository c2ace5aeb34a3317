//! Encryption as the store meets it: stored forms, rules, KMS providers that misbehave, and configurations that change.

mod forms;
mod kms;
mod provider;
mod reload;

use std::sync::Arc;

use encryption::Encryption;
use store::{Opened, Place, Transformer as _};
use tasks::Tasks;

/// 32 bytes, in base64.
const SECRET: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const OTHER: &str = "ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=";

fn file(resources: &str) -> String {
    format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources: {resources}"
    )
}

/// Keys of a provider, each a name and a secret.
fn keys(keys: &[(&str, &str)]) -> String {
    let key = |(name, secret): &(&str, &str)| format!("{{name: {name}, secret: {secret}}}");
    format!("{{keys: [{}]}}", keys.iter().map(key).collect::<Vec<_>>().join(", "))
}

/// One entry for one resource.
fn entry(resource: &str, providers: &str) -> String {
    format!("{{resources: ['{resource}'], providers: [{providers}]}}")
}

async fn load(resources: &str) -> Encryption {
    let made = Encryption::new(&file(resources), false, "server", &Tasks::new()).await;
    made.expect("a configuration")
}

async fn secrets(providers: &str) -> Encryption {
    load(&format!("[{}]", entry("secrets", providers))).await
}

fn at(key: &str) -> Place<'_> {
    Place { key, authenticated: key }
}

const KEY: &str = "/registry/secrets/ns/name";

fn sealed(encryption: &Encryption, key: &str, value: &[u8]) -> Vec<u8> {
    encryption.transform_to_storage(at(key), value.to_vec()).expect("encrypted").bytes
}

/// As the store reads: whoever has the key is asked first.
async fn opened(encryption: &Encryption, key: &str, kept: &[u8]) -> Result<Opened, String> {
    encryption.prepare(at(key), kept).await;
    encryption.transform_from_storage(at(key), kept.to_vec())
}

async fn value(encryption: &Encryption, key: &str, kept: &[u8]) -> Result<Vec<u8>, String> {
    opened(encryption, key, kept).await.map(|opened| opened.value)
}

/// Whether the stored form of a value is not the one that would be written now.
async fn is_stale(encryption: &Encryption, kept: &[u8]) -> bool {
    let opened = opened(encryption, KEY, kept).await.expect("readable");
    opened.stamp != encryption.write_stamp(KEY)
}

fn shared(encryption: Encryption) -> Arc<Encryption> {
    Arc::new(encryption)
}
