//! What a configuration must be (`pkg/apis/apiserver/validation/validation_encryption.go`, whose texts these are).

use std::collections::BTreeSet;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Configuration, KeyConfiguration, KmsConfiguration, ProviderConfiguration};
use crate::resources::GroupResource;

const AES_KEY_SIZES: &[usize] = &[16, 24, 32];
const SECRETBOX_KEY_SIZES: &[usize] = &[32];
/// Longest wait for a KMS provider that names none.
const TIMEOUT: Duration = Duration::from_secs(3);
const TWO_PROVIDERS: &str = "more than one provider specified in a single element, should split into different list elements";
const NO_PROVIDER: &str = "provider does not contain any of the expected providers: KMS, AESGCM, AESCBC, Secretbox, Identity";
const OVERLAP: &str = "using overlapping resources such as 'secrets' and '*.' in the same resource list is not \
                       allowed as they will be masked";

/// What is wrong, each with its field.
type Faults = Vec<String>;

/// The faults of a file. Durations are read on the way.
pub(super) fn validate(file: &mut Configuration, reload: bool) -> Faults {
    if file.resources.is_empty() {
        return vec![at_least_one("resources", "resources")];
    }
    let mut faults = Vec::new();
    let mut names = BTreeSet::new();
    for (index, entry) in file.resources.iter_mut().enumerate() {
        let (r, p) =
            (format!("resources[{index}].resources"), format!("resources[{index}].providers"));
        if entry.resources.is_empty() {
            faults.push(at_least_one(&r, &r));
        }
        faults.extend(overlaps(&entry.resources, &r));
        for (at, resource) in entry.resources.iter().enumerate() {
            let wrong = wrong_name(resource);
            faults.extend(wrong.map(|why| invalid(&format!("{r}[{at}]"), &quoted(resource), why)));
        }
        if entry.providers.is_empty() {
            faults.push(at_least_one(&p, &p));
        }
        for (at, provider) in entry.providers.iter_mut().enumerate() {
            validate_provider(provider, &format!("{p}[{at}]"), (&mut names, reload), &mut faults);
        }
    }
    faults
}

fn required(path: &str, why: &str) -> String {
    format!("{path}: Required value: {why}")
}

fn at_least_one(path: &str, what: &str) -> String {
    required(path, &format!("at least one {what} is required"))
}

fn invalid(path: &str, value: &str, why: impl std::fmt::Display) -> String {
    format!("{path}: Invalid value: {value}: {why}")
}

fn quoted(text: &str) -> String {
    format!("{text:?}")
}

fn overlaps(resources: &[String], path: &str) -> Faults {
    let all: Vec<GroupResource> = resources.iter().map(|r| GroupResource::parse(r)).collect();
    let (mut doubled, mut overlapping) = (false, false);
    for (i, a) in all.iter().enumerate() {
        for b in all.iter().enumerate().filter(|(j, _)| i != *j).map(|(_, b)| b) {
            if a == b && !doubled {
                doubled = true;
                continue;
            }
            let star = a.resource == "*" || b.resource == "*";
            overlapping |= a.is_everything() || (a.group == b.group && star);
        }
    }
    let value = serde_json::to_string(resources).unwrap_or_default();
    let told =
        [(doubled, "the same resource cannot be specified multiple times"), (overlapping, OVERLAP)];
    told.iter().filter(|(is, _)| *is).map(|(_, why)| invalid(path, &value, why)).collect()
}

fn wrong_name(name: &str) -> Option<&'static str> {
    let parsed = GroupResource::parse(name);
    match name {
        _ if name.to_lowercase() != name => {
            Some("resource name should not contain capital letters")
        }
        "*" => Some(
            "use '*.' to encrypt all the resources from core API group or *.* to encrypt all resources",
        ),
        "apiserveripinfo" | "serviceipallocations" | "servicenodeportallocations" => {
            Some("resources which do not have REST API/s cannot be encrypted")
        }
        _ if parsed.group == "events.k8s.io" => Some(
            "'*.events.k8s.io' objects are stored using the 'events' API group in etcd. Use 'events' instead in \
             the config file",
        ),
        _ if parsed.group == "extensions" => {
            Some("'extensions' group has been removed and cannot be used for encryption")
        }
        _ if parsed.group == "*" && parsed.resource != "*" => {
            Some("encrypting the same resource across groups is not supported")
        }
        _ => None,
    }
}

fn validate_provider(
    provider: &mut ProviderConfiguration,
    path: &str,
    (names, reload): (&mut BTreeSet<String>, bool),
    faults: &mut Faults,
) {
    let found = [
        provider.kms.is_some(),
        provider.aesgcm.is_some(),
        provider.aescbc.is_some(),
        provider.secretbox.is_some(),
        provider.identity.is_some(),
    ];
    // The value is left out: it may hold keys.
    match found.iter().filter(|is| **is).count() {
        0 => faults.push(invalid(path, "{}", NO_PROVIDER)),
        1 => {}
        _ => faults.push(invalid(path, "REDACTED", TWO_PROVIDERS)),
    }
    let mut keys = |field: &str, keys: &[KeyConfiguration], sizes: &[usize]| {
        validate_keys(keys, &format!("{path}.{field}.keys"), sizes, faults);
    };
    if let Some(kms) = &mut provider.kms {
        validate_kms(kms, &format!("{path}.kms"), (names, reload), faults);
        names.insert(kms.name.clone());
    } else if let Some(aes) = &provider.aesgcm {
        keys("aesgcm", &aes.keys, AES_KEY_SIZES);
    } else if let Some(aes) = &provider.aescbc {
        keys("aescbc", &aes.keys, AES_KEY_SIZES);
    } else if let Some(secretbox) = &provider.secretbox {
        keys("secretbox", &secretbox.keys, SECRETBOX_KEY_SIZES);
    }
}

fn validate_keys(keys: &[KeyConfiguration], path: &str, sizes: &[usize], faults: &mut Faults) {
    if keys.is_empty() {
        faults.push(at_least_one(path, "keys"));
    }
    for (at, key) in keys.iter().enumerate() {
        if key.name.is_empty() {
            let field = format!("{path}[{at}].name");
            faults.push(required(&field, "name is a mandatory field for a key"));
        }
        let field = format!("{path}[{at}].secret");
        if key.secret.is_empty() {
            faults.push(required(&field, "secret is a mandatory field for a key"));
            continue;
        }
        let redacted = quoted("REDACTED");
        match STANDARD.decode(&key.secret) {
            Err(_) => faults.push(invalid(&field, &redacted, "secrets must be base64 encoded")),
            Ok(bytes) if sizes.contains(&bytes.len()) => {}
            Ok(bytes) => {
                let sizes: Vec<String> = sizes.iter().map(usize::to_string).collect();
                let (got, sizes) = (bytes.len(), sizes.join(" "));
                let why = format!(
                    "secret is not of the expected length, got {got}, expected one of [{sizes}]"
                );
                faults.push(invalid(&field, &redacted, why));
            }
        }
    }
}

fn validate_kms(
    kms: &mut KmsConfiguration,
    path: &str,
    (names, reload): (&BTreeSet<String>, bool),
    faults: &mut Faults,
) {
    let (name, first) = (&kms.name, kms.api_version == "v1");
    let field = format!("{path}.name");
    if name.is_empty() {
        faults.push(required(&field, "name is a mandatory field for a provider"));
    }
    if !first && name.contains(':') {
        let why = format!("invalid KMS provider name {name}, must not contain ':'");
        faults.push(invalid(&field, &quoted(name), why));
    }
    if (reload || !first) && names.contains(name) {
        let why = format!("duplicate KMS provider name {name}, names must be unique");
        faults.push(invalid(&field, &quoted(name), why));
    }
    let field = format!("{path}.timeout");
    match kms.timeout.as_deref().map(|text| (text, api::duration::parse(text))) {
        None => kms.deadline = TIMEOUT,
        Some((_, Ok(time))) if !time.negative && !time.length.is_zero() => {
            kms.deadline = time.length;
        }
        Some((text, Ok(_))) => {
            faults.push(invalid(&field, &quoted(text), "timeout should be a positive value"));
        }
        Some((text, Err(why))) => faults.push(invalid(&field, &quoted(text), why)),
    }
    faults.extend(endpoint(&kms.endpoint, &format!("{path}.endpoint")));
    let field = format!("{path}.cachesize");
    match kms.cachesize {
        Some(size) if !first => {
            faults.push(invalid(&field, &size.to_string(), "cachesize is not supported in v2"));
        }
        Some(0) => {
            let why = "cachesize should be a positive value, or negative to disable";
            faults.push(invalid(&field, "0", why));
        }
        _ => {}
    }
    if !["v1", "v2"].contains(&kms.api_version.as_str()) {
        let why =
            "unsupported apiVersion apiVersion for KMS provider, only v1 and v2 are supported";
        faults.push(invalid(&format!("{path}.apiVersion"), &quoted(&kms.api_version), why));
    }
}

fn endpoint(endpoint: &str, path: &str) -> Option<String> {
    if endpoint.is_empty() {
        return Some(invalid(path, "\"\"", "endpoint is a mandatory field for a kms"));
    }
    let scheme = endpoint.split_once(':').map_or("", |(scheme, _)| scheme);
    if endpoint.contains(|c: char| c.is_ascii_control()) {
        let why = "invalid endpoint for kms provider, error: invalid control character in URL";
        return Some(invalid(path, &quoted(endpoint), why));
    }
    (scheme != "unix").then(|| {
        let why = format!("unsupported scheme {scheme:?} for KMS provider, only unix is supported");
        invalid(path, &quoted(endpoint), why)
    })
}
