//! containerd's `hosts.toml`: hosts that are asked before the registry, and how to speak to each.

use std::path::Path;
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use crate::endpoint::{Url, mirror_of};
use crate::value::{Field, Value};
use crate::{Can, Endpoint, Error, KeyPair, Tls};

/// The settings of one host in a file.
struct Host {
    can: Option<Can>,
    tls: Option<Tls>,
    headers: Vec<(HeaderName, HeaderValue)>,
    override_path: bool,
    dial_timeout: Option<Duration>,
}

/// The endpoints of `registry` by the file at `path`: its hosts in the file's order, then its `server`, which is
/// the registry itself when the file names none.
pub(crate) fn endpoints(path: &Path, text: &str, registry: &str) -> Result<Vec<Endpoint>, Error> {
    let table: toml::Table = text.parse().map_err(|e: toml::de::Error| {
        let line = e.span().map(|s| text[..s.start.min(text.len())].matches('\n').count() + 1);
        let line = line.map(|line| format!("line {line}")).unwrap_or_default();
        Error::new(path, &line, e.message())
    })?;
    let value = Value::from(table);
    let top = Field { file: path, path: String::new(), value: &value };
    let mut all = Vec::new();
    let (mut server, mut rest) = (None, Vec::new());
    for (key, field) in top.table()? {
        match key {
            "server" => server = Some(field),
            "host" => {
                for (name, host) in field.table()? {
                    let said = Host::read(host.table()?)?;
                    all.push(said.endpoint(&host, name, registry)?);
                }
            }
            _ => rest.push((key, field)),
        }
    }
    let said = Host::read(rest)?;
    let last = match server.as_ref().map(|s| s.text().map(|text| (s, text))).transpose()? {
        Some((field, name)) if !name.is_empty() => said.endpoint(field, name, registry)?,
        _ => said.own(registry),
    };
    all.push(last);
    Ok(all)
}

impl Host {
    fn read(fields: Vec<(&str, Field<'_>)>) -> Result<Host, Error> {
        let mut host = Host {
            can: None,
            tls: None,
            headers: Vec::new(),
            override_path: false,
            dial_timeout: None,
        };
        for (key, field) in fields {
            match key {
                "capabilities" => host.can = capabilities(&field)?,
                "ca" => {
                    let files = field.one_or_more()?;
                    let files = files.iter().map(Field::file_name).collect::<Result<_, _>>()?;
                    host.tls().authorities = files;
                }
                "client" => host.tls().client = client(&field)?,
                "skip_verify" => host.tls().skip_verify = field.flag()?,
                "header" => host.headers = headers(&field)?,
                "override_path" => host.override_path = field.flag()?,
                "dial_timeout" => host.dial_timeout = Some(duration(&field)?),
                _ => return Err(field.error("no such field")),
            }
        }
        Ok(host)
    }

    fn tls(&mut self) -> &mut Tls {
        self.tls.get_or_insert_default()
    }

    fn endpoint(self, field: &Field<'_>, name: &str, registry: &str) -> Result<Endpoint, Error> {
        let url = Url::parse(name).map_err(|why| field.error(why))?;
        let scheme = url.scheme.unwrap_or("https");
        let url = Url { scheme: Some(scheme), ..url };
        let path = match self.override_path || url.path.ends_with("/v2") {
            true => url.path.clone(),
            false => format!("{}/v2", url.path),
        };
        Ok(Endpoint {
            schemes: url.schemes(self.tls.is_some()),
            mirror_of: mirror_of(registry, &url.host),
            host: url.host,
            path,
            can: self.can.unwrap_or(Can::ALL),
            tls: self.tls.unwrap_or_default(),
            headers: self.headers,
            rewrites: Vec::new(),
            login: None,
            dial_timeout: self.dial_timeout,
        })
    }

    /// The registry itself, which can do everything, with what the file says of it.
    fn own(self, registry: &str) -> Endpoint {
        let standard = Endpoint::standard(registry);
        Endpoint {
            tls: self.tls.unwrap_or(standard.tls),
            headers: self.headers,
            dial_timeout: self.dial_timeout,
            ..standard
        }
    }
}

fn capabilities(field: &Field<'_>) -> Result<Option<Can>, Error> {
    let mut can = Can::NOTHING;
    let list = field.list()?;
    for item in &list {
        match item.text()?.to_ascii_lowercase().as_str() {
            "pull" => can.pull = true,
            "resolve" => can.resolve = true,
            "push" => can.push = true,
            // Asked for by nobody here.
            "referrers" => {}
            other => return Err(item.error(format!("unknown capability {other}"))),
        }
    }
    // An empty list is as if there were none.
    Ok((!list.is_empty()).then_some(can))
}

/// `"both.pem"`, `["both.pem"]` or `[["cert.pem", "key.pem"]]`.
fn client(field: &Field<'_>) -> Result<Option<KeyPair>, Error> {
    let pair = |item: &Field<'_>| -> Result<KeyPair, Error> {
        if let Value::Text(_) = item.value {
            let both = item.file_name()?;
            return Ok(KeyPair { certificate: both.clone(), key: both });
        }
        match item.list()?.as_slice() {
            [certificate, key] => {
                Ok(KeyPair { certificate: certificate.file_name()?, key: key.file_name()? })
            }
            _ => Err(item.error("a pair is a certificate and a key")),
        }
    };
    let pairs = field.one_or_more()?;
    if pairs.len() > 1 {
        return Err(field.error("more than one client certificate is not supported"));
    }
    pairs.first().map(pair).transpose()
}

fn headers(field: &Field<'_>) -> Result<Vec<(HeaderName, HeaderValue)>, Error> {
    let mut all = Vec::new();
    for (name, values) in field.table()? {
        let name: HeaderName = name.parse().map_err(|e| values.error(format!("{e}")))?;
        for value in values.one_or_more()? {
            let mut text: HeaderValue =
                value.text()?.parse().map_err(|e| value.error(format!("{e}")))?;
            text.set_sensitive(true);
            all.push((name.clone(), text));
        }
    }
    Ok(all)
}

/// Go's durations, in one unit or several: `30s`, `1m30s`, `1500ms`.
fn duration(field: &Field<'_>) -> Result<Duration, Error> {
    let text = field.text()?;
    let bad = || field.error(format!("{text:?} is no duration (30s, 1m30s, 500ms)"));
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
        let number: u32 = rest[..digits].parse().map_err(|_| bad())?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            "h" => Duration::from_secs(3600),
            _ => return Err(bad()),
        };
        total += unit.checked_mul(number).ok_or_else(bad)?;
        rest = &rest[end..];
    }
    if total.is_zero() { Err(bad()) } else { Ok(total) }
}
