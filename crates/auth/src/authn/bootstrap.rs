//! Bootstrap tokens: Secrets of `kube-system` that let nodes join
//! (`plugin/pkg/auth/authenticator/token/bootstrap`).

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::Value;
use subtle::ConstantTimeEq as _;

use crate::objects::Objects;
use crate::user::User;

const TYPE: &str = "bootstrap.kubernetes.io/token";
const GROUP: &str = "system:bootstrappers";
/// Characters of a token's id and of its secret.
const LENGTHS: (usize, usize) = (6, 16);

/// Whose a token is. What is no bootstrap token, or none that counts, is nobody's.
pub(super) fn user(objects: &dyn Objects, token: &str, now: Timestamp) -> Option<User> {
    let (id, secret) = parse(token)?;
    let stored = objects.of("", "secrets")?.get(&format!("kube-system/bootstrap-token-{id}"))?;
    match of_secret(&stored.to_value(), (id, secret), now) {
        Ok(groups) => {
            Some(User { name: format!("system:bootstrap:{id}"), groups, ..User::default() })
        }
        Err(why) => {
            tracing::info!(id, why, "a bootstrap token is not accepted");
            None
        }
    }
}

fn parse(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let plain = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    ((id.len(), secret.len()) == LENGTHS && plain(id) && plain(secret)).then_some((id, secret))
}

/// The groups of the token's user, or why it does not count.
fn of_secret(
    object: &Value,
    (id, secret): (&str, &str),
    now: Timestamp,
) -> Result<Vec<String>, String> {
    if !object["metadata"]["deletionTimestamp"].is_null() {
        return Err("is deleted and awaiting removal".into());
    }
    if object["type"] != TYPE {
        return Err(format!("has invalid type, expected {TYPE}"));
    }
    let data = decoded(object);
    let get = |key: &str| data.get(key).map_or("", String::as_str);
    if !bool::from(get("token-secret").as_bytes().ct_eq(secret.as_bytes())) {
        return Err("has invalid value for key token-secret".into());
    }
    if get("token-id") != id {
        return Err("has invalid value for key token-id".into());
    }
    let expiration = get("expiration");
    // A time that cannot be read is over.
    let is_over = || expiration.parse::<Timestamp>().map_or(true, |end| end <= now);
    if !expiration.is_empty() && is_over() {
        return Err("has expired".into());
    }
    if get("usage-bootstrap-authentication") != "true" {
        return Err("not marked usage-bootstrap-authentication=true".into());
    }
    groups(get("auth-extra-groups"))
}

fn decoded(object: &Value) -> BTreeMap<&str, String> {
    let data = object["data"].as_object().into_iter().flatten();
    let text = |value: &Value| {
        STANDARD.decode(value.as_str()?).ok().and_then(|b| String::from_utf8(b).ok())
    };
    data.filter_map(|(key, value)| Some((key.as_str(), text(value)?))).collect()
}

fn groups(extra: &str) -> Result<Vec<String>, String> {
    let mut all = BTreeSet::from([GROUP.to_owned()]);
    for group in extra.split(',').filter(|_| !extra.is_empty()) {
        if !is_group(group) {
            return Err(format!(
                "has invalid value for key auth-extra-groups: bootstrap group {group:?} is invalid \
                 (must match \\Asystem:bootstrappers:[a-z0-9:-]{{0,255}}[a-z0-9]\\z)"
            ));
        }
        all.insert(group.to_owned());
    }
    Ok(all.into_iter().collect())
}

fn is_group(group: &str) -> bool {
    let Some(rest) = group.strip_prefix("system:bootstrappers:") else { return false };
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    (1..=256).contains(&rest.len())
        && rest.bytes().all(|b| alnum(b) || b == b':' || b == b'-')
        && rest.bytes().last().is_some_and(alnum)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn secret(change: impl FnOnce(&mut Value)) -> Value {
        let mut data = json!({
            "token-id": "abcdef", "token-secret": "0123456789abcdef",
            "usage-bootstrap-authentication": "true",
            "auth-extra-groups": "system:bootstrappers:z,system:bootstrappers:a",
            "expiration": "2001-01-01T00:00:00Z",
        });
        change(&mut data);
        let data = data.as_object().expect("a map").iter();
        let data: serde_json::Map<String, Value> = data
            .map(|(key, value)| (key.clone(), STANDARD.encode(value.as_str().unwrap_or("")).into()))
            .collect();
        json!({"type": TYPE, "metadata": {}, "data": data})
    }

    fn judged(object: &Value) -> Result<Vec<String>, String> {
        let now = Timestamp::from_second(978_220_800).expect("in 2000");
        of_secret(object, ("abcdef", "0123456789abcdef"), now)
    }

    #[test]
    fn a_token_is_its_secret_until_it_expires() {
        let groups = judged(&secret(|_| {})).expect("accepted");
        assert_eq!(
            groups,
            ["system:bootstrappers", "system:bootstrappers:a", "system:bootstrappers:z"]
        );
        for (key, value, why) in [
            ("token-secret", "0123456789abcdee", "key token-secret"),
            ("token-id", "abcdeg", "key token-id"),
            ("expiration", "2000-12-31T00:00:00Z", "expired"),
            ("expiration", "soon", "expired"),
            ("usage-bootstrap-authentication", "yes", "not marked"),
            ("auth-extra-groups", "system:masters", "auth-extra-groups"),
            ("auth-extra-groups", "system:bootstrappers:", "auth-extra-groups"),
            ("auth-extra-groups", "system:bootstrappers:a-", "auth-extra-groups"),
        ] {
            let told = judged(&secret(|data| data[key] = value.into())).expect_err(key);
            assert!(told.contains(why), "{told}");
        }
        let mut other = secret(|_| {});
        other["type"] = "Opaque".into();
        assert!(judged(&other).expect_err("another type").contains("invalid type"));
        let mut going = secret(|_| {});
        going["metadata"]["deletionTimestamp"] = "2000-01-01T00:00:00Z".into();
        assert!(judged(&going).is_err());
    }

    #[test]
    fn other_tokens_are_passed_over() {
        assert!(parse("abcdef.0123456789abcdef").is_some());
        for token in ["abcdef", "abcde.0123456789abcdef", "ABCDEF.0123456789abcdef", "a.b.c", ""] {
            assert!(parse(token).is_none(), "{token}");
        }
    }
}
