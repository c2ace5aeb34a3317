//! Tokens in a request: in the `Authorization` header, or among a WebSocket's subprotocols, since
//! browsers cannot set headers there.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue, header};

const IN_PROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";
/// Headers by which front proxies say who asks: nobody else is believed.
const FRONT_PROXY: [&str; 3] = ["x-remote-user", "x-remote-uid", "x-remote-group"];
const FRONT_PROXY_EXTRA: &str = "x-remote-extra-";

/// The token of an `Authorization: Bearer` header. What is no such header says nothing.
pub(super) fn of_header(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let mut words = std::str::from_utf8(value).ok()?.trim().split(' ');
    let scheme = words.next()?;
    let token = words.next().filter(|token| !token.is_empty())?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

/// A token among subprotocols, and the others.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct InProtocols {
    pub(super) token: String,
    others: String,
}

impl InProtocols {
    /// The server speaks one of the others, and must not be asked for the token.
    pub(super) fn take_out(&self, headers: &mut HeaderMap) {
        headers.remove(header::SEC_WEBSOCKET_PROTOCOL);
        if let Ok(others) = HeaderValue::from_str(&self.others) {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, others);
        }
    }
}

pub(super) fn of_protocols(headers: &HeaderMap) -> Result<Option<InProtocols>, String> {
    if !streams::is_websocket(headers) {
        return Ok(None);
    }
    let (mut token, mut others) = (None, Vec::new());
    for value in headers.get_all(header::SEC_WEBSOCKET_PROTOCOL) {
        let text = String::from_utf8_lossy(value.as_bytes());
        for protocol in text.split(',').map(str::trim) {
            match protocol.strip_prefix(IN_PROTOCOL) {
                None => others.push(protocol.to_owned()),
                Some(_) if token.is_some() => {
                    return Err("multiple base64.bearer.authorization tokens specified".into());
                }
                Some(encoded) => token = Some(decoded(encoded)?),
            }
        }
    }
    match token.filter(|token| !token.is_empty()) {
        Some(_) if others.is_empty() => Err("missing additional subprotocol".into()),
        Some(token) => Ok(Some(InProtocols { token, others: others.join(",") })),
        None => Ok(None),
    }
}

fn decoded(text: &str) -> Result<String, String> {
    let bytes = URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|_| "invalid base64.bearer.authorization token encoding")?;
    String::from_utf8(bytes).map_err(|_| "invalid base64.bearer.authorization token".into())
}

/// Who asks is known: what claims to say so otherwise goes no further.
pub(super) fn remove_front_proxy(headers: &mut HeaderMap) {
    FRONT_PROXY.iter().for_each(|name| drop(headers.remove(*name)));
    let extra: Vec<_> = headers
        .keys()
        .filter(|name| name.as_str().starts_with(FRONT_PROXY_EXTRA))
        .cloned()
        .collect();
    extra.iter().for_each(|name| drop(headers.remove(name)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(all: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in all {
            let name: header::HeaderName = name.parse().expect("a name");
            map.append(name, value.parse().expect("a value"));
        }
        map
    }

    #[test]
    fn only_a_bearer_header_holds_a_token() {
        let of = |value| of_header(&headers(&[("authorization", value)])).map(str::to_owned);
        assert_eq!(of("Bearer abc").as_deref(), Some("abc"));
        assert_eq!(of("bEARER abc rest").as_deref(), Some("abc"));
        for other in ["Basic abc", "Bearer", "Bearer  abc", "abc"] {
            assert_eq!(of(other), None, "{other}");
        }
    }

    #[test]
    fn a_token_among_protocols_needs_another_beside_it_and_is_taken_out() {
        let upgrade = [("connection", "Upgrade"), ("upgrade", "websocket")];
        let sent = |protocols: &str| {
            let mut all = upgrade.to_vec();
            all.push(("sec-websocket-protocol", protocols));
            headers(&all)
        };
        let token = format!("{IN_PROTOCOL}{}", URL_SAFE_NO_PAD.encode("abc"));
        let mut good = sent(&format!("v5.channel.k8s.io, {token}"));
        let found = of_protocols(&good).expect("in order").expect("a token");
        assert_eq!(found.token, "abc");
        found.take_out(&mut good);
        assert_eq!(good["sec-websocket-protocol"], "v5.channel.k8s.io");
        assert_eq!(of_protocols(&good), Ok(None));
        for (protocols, why) in [
            (token.clone(), "missing additional subprotocol"),
            (format!("{token},{token},x"), "multiple base64.bearer.authorization tokens specified"),
            (format!("{IN_PROTOCOL}*,x"), "invalid base64.bearer.authorization token encoding"),
            (format!("{IN_PROTOCOL}_w,x"), "invalid base64.bearer.authorization token"),
        ] {
            assert_eq!(of_protocols(&sent(&protocols)), Err(why.into()), "{protocols}");
        }
        let plain = headers(&[("sec-websocket-protocol", &token)]);
        assert_eq!(of_protocols(&plain), Ok(None), "no WebSocket");
    }
}
