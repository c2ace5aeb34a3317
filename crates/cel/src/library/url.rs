//! URLs, read as Go's `net/url` reads them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Answer, Function};
use crate::error::Error;
use crate::value::{Key, Map, Value};

/// A URL's parts. The path and query are as they were written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    pub(crate) text: Box<str>,
    scheme: Box<str>,
    host: Box<str>,
    path: Box<str>,
    query: Box<str>,
}

pub(super) fn find(name: &str) -> Option<Function> {
    Some(match name {
        "url" => |args| {
            let [Value::String(text)] = args else { return None };
            let fault =
                |why| Error::new(format!("URL parse error during conversion from string: {why}"));
            Some(parse(text).map(|url| Value::Url(Arc::new(url))).map_err(fault))
        },
        "isURL" => |args| {
            let [Value::String(text)] = args else { return None };
            Some(Ok(Value::Bool(parse_request(text).is_ok())))
        },
        "getScheme" => |args| part(args, |url| url.scheme.to_string()),
        "getHost" => |args| part(args, |url| url.host.to_string()),
        "getHostname" => |args| part(args, |url| split_port(&url.host).0.to_owned()),
        "getPort" => |args| part(args, |url| split_port(&url.host).1.to_owned()),
        "getEscapedPath" => |args| part(args, |url| escaped(&url.path)),
        "getQuery" => |args| {
            let [Value::Url(url)] = args else { return None };
            Some(Ok(query(&url.query)))
        },
        _ => return None,
    })
}

fn part<'v>(args: &[Value<'v>], f: fn(&Url) -> String) -> Answer<'v> {
    match args {
        [Value::Url(url)] => Some(Ok(Value::text(f(url)))),
        _ => None,
    }
}

/// Absolute, as a request's; then once more with the fragment cut off.
fn parse(text: &str) -> Result<Url, String> {
    parse_request(text)?;
    let plain = text.split_once('#').map_or(text, |(before, _)| before);
    let mut url = read(plain).map_err(|why| format!("parse {text:?}: {why}"))?;
    let rest = url.scheme.len();
    url.text = format!("{}{}", url.scheme, &text[rest.min(text.len())..]).into();
    Ok(url)
}

/// Refuses what is no absolute URL or path; the error is Go's.
pub(super) fn parse_request(text: &str) -> Result<(), String> {
    let refused = |why: String| Err(format!("parse {text:?}: {why}"));
    if text.bytes().any(|b| b < 0x20 || b == 0x7f) {
        return refused("net/url: invalid control character in URL".to_owned());
    }
    match text {
        "" => return refused("empty url".to_owned()),
        "*" => return Ok(()),
        _ => {}
    }
    let (scheme, rest) = scheme(text).or_else(refused_as(text))?;
    if !rest.starts_with('/') {
        return if scheme.is_empty() {
            refused("invalid URI for request".to_owned())
        } else {
            Ok(())
        };
    }
    read(text).map(drop).or_else(refused)
}

fn refused_as<T>(text: &str) -> impl FnOnce(String) -> Result<T, String> + '_ {
    move |why| Err(format!("parse {text:?}: {why}"))
}

/// The scheme, if there is one, and what follows.
fn scheme(text: &str) -> Result<(&str, &str), String> {
    for (at, character) in text.char_indices() {
        match character {
            'a'..='z' | 'A'..='Z' => {}
            '0'..='9' | '+' | '-' | '.' if at > 0 => {}
            ':' if at == 0 => return Err("missing protocol scheme".to_owned()),
            ':' => return Ok((&text[..at], &text[at + 1..])),
            _ => break,
        }
    }
    Ok(("", text))
}

fn read(text: &str) -> Result<Url, String> {
    let (scheme, rest) = scheme(text)?;
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let mut url = Url {
        text: text.into(),
        scheme: scheme.to_ascii_lowercase().into(),
        host: "".into(),
        path: rest.into(),
        query: query.into(),
    };
    if !rest.starts_with('/') {
        // Opaque: neither host nor path.
        url.path = "".into();
        return Ok(url);
    }
    if let Some(after) =
        rest.strip_prefix("//").filter(|_| !scheme.is_empty() || !rest.starts_with("///"))
    {
        let end = after.find('/').unwrap_or(after.len());
        url.host = host(&after[..end])?.into();
        url.path = after[end..].into();
    }
    unescape(&url.path, false)?;
    Ok(url)
}

/// The host and port of an authority.
fn host(authority: &str) -> Result<&str, String> {
    let (user, host) = match authority.rsplit_once('@') {
        Some((user, host)) => (user, host),
        None => ("", authority),
    };
    if user.chars().any(|c| !(c.is_ascii_alphanumeric() || "-._:~!$&'()*+,;=%@".contains(c))) {
        return Err("net/url: invalid userinfo".to_owned());
    }
    if let Some(inside) = host.strip_prefix('[') {
        let end = inside.rfind(']').ok_or("missing ']' in host")?;
        check_port(&inside[end + 1..])?;
        return Ok(host);
    }
    if let Some(at) = host.rfind(':') {
        check_port(&host[at..])?;
    }
    let bad = |c: &char| {
        c.is_ascii() && !(c.is_ascii_alphanumeric() || "-_.~!$&'()*+,;=:[]<>\"%".contains(*c))
    };
    match host.chars().find(bad) {
        Some(c) => Err(format!("invalid character {:?} in host name", c.to_string())),
        None => Ok(host),
    }
}

fn check_port(port: &str) -> Result<(), String> {
    let digits = port.strip_prefix(':').unwrap_or(port);
    let fits =
        port.is_empty() || (port.starts_with(':') && digits.bytes().all(|b| b.is_ascii_digit()));
    if fits { Ok(()) } else { Err(format!("invalid port {port:?} after host")) }
}

fn split_port(host: &str) -> (&str, &str) {
    if let Some((inside, after)) = host.strip_prefix('[').and_then(|h| h.split_once(']')) {
        return (inside, after.strip_prefix(':').unwrap_or(""));
    }
    host.rsplit_once(':').unwrap_or((host, ""))
}

/// Percent signs and, in queries, pluses resolved; the error shows the first bad escape.
fn unescape(text: &str, in_query: bool) -> Result<String, String> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'%' => {
                let digits =
                    text.get(at + 1..at + 3).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
                let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
                let shown =
                    || String::from_utf8_lossy(&bytes[at..bytes.len().min(at + 3)]).into_owned();
                out.push(byte.ok_or_else(|| format!("invalid URL escape {:?}", shown()))?);
                at += 3;
                continue;
            }
            b'+' if in_query => out.push(b' '),
            byte => out.push(byte),
        }
        at += 1;
    }
    Ok(String::from_utf8_lossy(&out).into_owned())
}

/// The path as it was written if that is a valid form, escaped otherwise.
fn escaped(path: &str) -> String {
    let kept = |c: char| c.is_ascii_alphanumeric() || "-_.~!$&'()*+,;=:@[]/%".contains(c);
    if path.chars().all(kept) {
        return path.to_owned();
    }
    let plain = unescape(path, false).unwrap_or_else(|_| path.to_owned());
    let mut out = String::with_capacity(plain.len());
    for byte in plain.bytes() {
        match char::from(byte) {
            c if byte.is_ascii_alphanumeric() || "-_.~$&+,/:;=@".contains(c) => out.push(c),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn query(query: &str) -> Value<'static> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';')) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if let (Ok(name), Ok(value)) = (unescape(name, true), unescape(value, true)) {
            found.entry(name).or_default().push(value);
        }
    }
    let entries = found.into_iter().map(|(name, values)| {
        (Key::String(name.as_str().into()), (Value::text(name), Value::texts(values)))
    });
    Value::Map(Map::Made(Arc::new(entries.collect())))
}
