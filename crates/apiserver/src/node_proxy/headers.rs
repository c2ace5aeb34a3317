//! Headers on their way through: those of a connection end with it, credentials stay here.

use http::{HeaderMap, HeaderName, HeaderValue, header};

/// Headers that are about one connection (RFC 9110 §7.6.1, and what Go's proxy adds).
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "proxy-connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// Headers by which clients say who they are; no backend may see them.
const CREDENTIALS: [&str; 7] = [
    "authorization",
    "impersonate-user",
    "impersonate-uid",
    "impersonate-group",
    "x-remote-user",
    "x-remote-uid",
    "x-remote-group",
];
const CREDENTIAL_PREFIXES: [&str; 2] = ["impersonate-extra-", "x-remote-extra-"];
/// A page of a pod must not let other sites use the API server's origin.
const SHARING: [&str; 4] = [
    "access-control-allow-credentials",
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-allow-origin",
];

fn connection_words(headers: &HeaderMap) -> impl Iterator<Item = String> {
    let values = headers.get_all(header::CONNECTION).iter().filter_map(|v| v.to_str().ok());
    values.flat_map(|v| v.split(',')).map(|word| word.trim().to_ascii_lowercase())
}

/// Removes what belongs to the connection that the message came on. An upgrade goes on.
fn end_hop(headers: &mut HeaderMap, upgrade: Option<HeaderValue>) {
    let named: Vec<String> = connection_words(headers).collect();
    named.iter().for_each(|name| drop(headers.remove(name)));
    HOP_BY_HOP.iter().for_each(|name| drop(headers.remove(*name)));
    if let Some(protocol) = upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, protocol);
    }
}

/// A request on its way to a backend.
pub(crate) fn of_request(headers: &mut HeaderMap) {
    let upgrade =
        streams::is_upgrade(headers).then(|| headers.get(header::UPGRADE).cloned()).flatten();
    end_hop(headers, upgrade);
    CREDENTIALS.iter().for_each(|name| drop(headers.remove(*name)));
    let own = |name: &&HeaderName| CREDENTIAL_PREFIXES.iter().any(|p| name.as_str().starts_with(p));
    let more: Vec<HeaderName> = headers.keys().filter(own).cloned().collect();
    more.iter().for_each(|name| drop(headers.remove(name)));
}

/// An answer on its way to the client.
pub(super) fn of_answer(headers: &mut HeaderMap, switches: bool) {
    let upgrade = if switches { headers.get(header::UPGRADE).cloned() } else { None };
    end_hop(headers, upgrade);
}

/// An answer of a pod or service.
pub(super) fn remove_sharing(headers: &mut HeaderMap) {
    SHARING.iter().for_each(|name| drop(headers.remove(*name)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(all: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = all
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        pairs.collect()
    }

    #[test]
    fn credentials_and_what_is_about_a_connection_stay_here() {
        let mut sent = headers(&[
            ("authorization", "Bearer x"),
            ("impersonate-user", "u"),
            ("impersonate-extra-scopes", "s"),
            ("x-remote-user", "u"),
            ("x-remote-extra-a", "b"),
            ("connection", "keep-alive, X-Secret"),
            ("x-secret", "s"),
            ("te", "trailers"),
            ("upgrade", "h2c"),
            ("accept", "*/*"),
        ]);
        of_request(&mut sent);
        assert_eq!(sent, headers(&[("accept", "*/*")]));
    }

    #[test]
    fn an_upgrade_goes_on() {
        let mut sent = headers(&[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-key", "k"),
        ]);
        of_request(&mut sent);
        let wanted = headers(&[
            ("sec-websocket-key", "k"),
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
        ]);
        assert_eq!(sent, wanted);
    }
}
