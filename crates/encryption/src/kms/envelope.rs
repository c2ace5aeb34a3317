//! The stored form of a value: checks, encoding, and the key under which its seed is remembered.

use prost::Message as _;
use ring::digest::{Context, SHA256};

use super::wire::{AES_GCM_KEY, EncryptedObject, HKDF_SEED};

const ANNOTATIONS_MAX: usize = 32 * 1024;
const KEY_ID_MAX: usize = 1024;
const SOURCE_MAX: usize = 1024;

/// What is wrong with a key's id: the code of upstream's metric, and the text.
pub(super) fn wrong_key_id(id: &str) -> Option<(&'static str, String)> {
    match id.len() {
        0 => Some(("empty", "keyID is empty".into())),
        n if n > KEY_ID_MAX => Some((
            "too_long",
            format!("keyID is {n} bytes, which exceeds the max size of {KEY_ID_MAX}"),
        )),
        _ => None,
    }
}

/// Refuses what is no whole value, or what a provider must not give.
pub(super) fn validate(object: &EncryptedObject) -> Result<(), String> {
    if ![AES_GCM_KEY, HKDF_SEED].contains(&object.source_type) {
        return Err(format!("unknown encryptedDEKSourceType: {}", object.source_type));
    }
    if object.encrypted_data.is_empty() {
        return Err("encrypted data is empty".into());
    }
    let source = "failed to validate encrypted DEK source";
    match object.encrypted_source.len() {
        0 => return Err(format!("{source}: encrypted DEK source is empty")),
        n if n > SOURCE_MAX => {
            return Err(format!(
                "{source}: encrypted DEK source is {n} bytes, which exceeds the max size of {SOURCE_MAX}"
            ));
        }
        _ => {}
    }
    if let Some((_, why)) = wrong_key_id(&object.key_id) {
        return Err(format!("failed to validate key id: {why}"));
    }
    let wrong = wrong_annotations(object);
    wrong.map_or(Ok(()), |why| Err(format!("failed to validate annotations: {why}")))
}

fn wrong_annotations(object: &EncryptedObject) -> Option<String> {
    let mut faults: Vec<String> = Vec::new();
    let mut size = 0;
    for (key, value) in &object.annotations {
        size += key.len() + value.len();
        if key.is_empty() {
            faults.push("annotations: Required value".into());
            continue;
        }
        let unfit = api::names::dns_subdomain(key);
        match unfit.is_empty() && !key.contains('.') {
            true => faults.push(format!(
                "annotations: Invalid value: {key:?}: should be a domain with at least two segments separated by dots"
            )),
            false => faults.extend(
                unfit.iter().map(|why| format!("annotations: Invalid value: {key:?}: {why}")),
            ),
        }
    }
    if size > ANNOTATIONS_MAX {
        faults.push(format!(
            "total size of annotations is {size}, which exceeds the max size of {ANNOTATIONS_MAX}"
        ));
    }
    match faults.len() {
        0 => None,
        1 => faults.pop(),
        _ => Some(format!("[{}]", faults.join(", "))),
    }
}

pub(super) fn encode(object: &EncryptedObject) -> Result<Vec<u8>, String> {
    validate(object)?;
    Ok(object.encode_to_vec())
}

pub(super) fn decode(kept: &[u8]) -> Result<EncryptedObject, String> {
    let object = EncryptedObject::decode(kept).map_err(|e| format!("proto: {e}"))?;
    validate(&object)?;
    Ok(object)
}

/// Tells seeds apart by all that the provider is told about one.
pub(super) fn cache_key(object: &EncryptedObject) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    let mut add = |bytes: &[u8]| {
        context.update(&(bytes.len() as u64).to_be_bytes());
        context.update(bytes);
    };
    add(&object.source_type.to_be_bytes());
    add(&object.encrypted_source);
    add(object.key_id.as_bytes());
    for (key, value) in &object.annotations {
        add(key.as_bytes());
        add(value);
    }
    let mut key = [0; 32];
    key.copy_from_slice(context.finish().as_ref());
    key
}
