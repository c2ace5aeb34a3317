//! A proxy in front of this server, which says in headers who asks (apiserver
//! `pkg/authentication/request/headerrequest`).

use std::collections::BTreeMap;

use http::HeaderMap;

use super::Opinion;
use super::impersonation::unescape;
use crate::user::User;

/// Which proxies are believed, and the headers in which they say who asks (`--requestheader-*`). Whose
/// certificate it is has been verified; nobody else's headers are read.
#[derive(Debug, Clone, Default)]
pub struct FrontProxies {
    /// Common names of their certificates; any when there are none.
    pub allowed_names: Vec<String>,
    pub username: Vec<String>,
    pub uid: Vec<String>,
    pub groups: Vec<String>,
    pub extra_prefixes: Vec<String>,
}

impl FrontProxies {
    /// Takes the user out of the headers, when the certificate (DER) is that of a proxy. Without a name in them the
    /// proxy says nothing.
    pub(super) fn user(&self, certificate: &[u8], headers: &mut HeaderMap) -> Opinion {
        let subject = pki::subject_of(certificate).map_err(|e| e.to_string())?;
        if subject.expires <= jiff::Timestamp::now().as_second() {
            return Err("the front proxy's certificate has expired".into());
        }
        if !self.allowed_names.is_empty() && !self.allowed_names.contains(&subject.common_name) {
            let name = subject.common_name;
            return Err(format!("x509: subject with cn={name} is not in the allowed list"));
        }
        let Some(name) = first(headers, &self.username)? else { return Ok(None) };
        let user = User {
            name,
            uid: first(headers, &self.uid)?.unwrap_or_default(),
            groups: self.groups.iter().flat_map(|name| all(headers, name)).collect(),
            extra: self.extra(headers)?,
        };
        self.clear(headers);
        Ok(Some(user))
    }

    fn extra(&self, headers: &HeaderMap) -> Result<BTreeMap<String, Vec<String>>, String> {
        let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for prefix in &self.extra_prefixes {
            let prefix = prefix.to_ascii_lowercase();
            for name in headers.keys().map(http::HeaderName::as_str) {
                if let Some(key) = name.strip_prefix(&prefix) {
                    let values = headers.get_all(name).iter().map(text);
                    let values = values.collect::<Result<Vec<_>, _>>()?;
                    extra.entry(unescape(key)).or_default().extend(values);
                }
            }
        }
        Ok(extra)
    }

    /// Nobody behind here takes them for their own.
    fn clear(&self, headers: &mut HeaderMap) {
        for name in self.username.iter().chain(&self.uid).chain(&self.groups) {
            headers.remove(name.to_ascii_lowercase());
        }
        let prefixes: Vec<String> =
            self.extra_prefixes.iter().map(|prefix| prefix.to_ascii_lowercase()).collect();
        let is_extra = |name: &&http::HeaderName| {
            prefixes.iter().any(|prefix| name.as_str().starts_with(prefix.as_str()))
        };
        let extra: Vec<_> = headers.keys().filter(is_extra).cloned().collect();
        extra.iter().for_each(|name| drop(headers.remove(name)));
    }
}

fn text(value: &http::HeaderValue) -> Result<String, String> {
    let text = std::str::from_utf8(value.as_bytes());
    text.map(str::to_owned).map_err(|_| "a header of the front proxy is not UTF-8".into())
}

/// The first value that is not empty, of the first header that has one.
fn first(headers: &HeaderMap, names: &[String]) -> Result<Option<String>, String> {
    let values = names.iter().filter_map(|name| headers.get(name.to_ascii_lowercase()));
    values.filter(|value| !value.is_empty()).map(text).next().transpose()
}

fn all<'h>(headers: &'h HeaderMap, name: &str) -> impl Iterator<Item = String> + 'h {
    let values = headers.get_all(name.to_ascii_lowercase()).iter();
    values.filter(|value| !value.is_empty()).filter_map(|value| text(value).ok())
}

#[cfg(test)]
mod tests {
    use pki::{Authority, CertSpec};
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject as _;

    use super::*;

    fn certificate(name: &str) -> Vec<u8> {
        let authority = Authority::create("front-proxy-ca").expect("a CA");
        let issued = authority.issue(&CertSpec::client(name, None)).expect("issued");
        CertificateDer::from_pem_slice(issued.cert_pem.as_bytes()).expect("PEM").to_vec()
    }

    fn proxies() -> FrontProxies {
        let one = |name: &str| vec![name.to_owned()];
        FrontProxies {
            allowed_names: one("front-proxy-client"),
            username: one("X-Remote-User"),
            uid: one("X-Remote-Uid"),
            groups: one("X-Remote-Group"),
            extra_prefixes: one("X-Remote-Extra-"),
        }
    }

    fn headers(all: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in all {
            let name: http::HeaderName = name.parse().expect("a name");
            map.append(name, value.parse().expect("a value"));
        }
        map
    }

    #[test]
    fn a_proxy_says_who_asks() {
        let mut sent = headers(&[
            ("x-remote-user", "jane"),
            ("x-remote-uid", "7"),
            ("x-remote-group", "dev"),
            ("x-remote-group", ""),
            ("x-remote-group", "ops"),
            ("x-remote-extra-example.com%2fscope", "a"),
            ("x-remote-extra-example.com%2fscope", "b"),
            ("accept", "*/*"),
        ]);
        let user = proxies().user(&certificate("front-proxy-client"), &mut sent);
        let user = user.expect("believed").expect("somebody");
        assert_eq!((user.name.as_str(), user.uid.as_str()), ("jane", "7"));
        assert_eq!(user.groups, ["dev", "ops"]);
        assert_eq!(user.extra["example.com/scope"], ["a", "b"]);
        assert_eq!(sent, headers(&[("accept", "*/*")]), "nobody behind here sees them");
    }

    #[test]
    fn others_are_not_believed() {
        let mut sent = headers(&[("x-remote-user", "jane")]);
        let refused = proxies().user(&certificate("somebody"), &mut sent).expect_err("refused");
        assert_eq!(refused, "x509: subject with cn=somebody is not in the allowed list");
        let anybody = FrontProxies { allowed_names: vec![], ..proxies() };
        assert!(anybody.user(&certificate("somebody"), &mut sent).expect("believed").is_some());
        let nobody = proxies().user(&certificate("front-proxy-client"), &mut HeaderMap::new());
        assert_eq!(nobody, Ok(None), "a proxy that names nobody says nothing");
        assert!(proxies().user(b"not DER", &mut sent).is_err());
        let mut sent = headers(&[("x-remote-user", "jane")]);
        sent.append("x-remote-extra-k", http::HeaderValue::from_bytes(&[0xff]).expect("a value"));
        assert!(proxies().user(&certificate("front-proxy-client"), &mut sent).is_err());
    }
}
