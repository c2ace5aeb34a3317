//! k3s' `registries.yaml`: mirrors of registries, and logins and TLS by host.

use std::path::Path;

use crate::endpoint::{Url, mirror_of};
use crate::value::{Field, Value};
use crate::{Can, Endpoint, Error, KeyPair, Login, Rewrite, Tls};

/// The file, read.
pub(crate) struct Mirrors {
    mirrors: Vec<(String, Mirror)>,
    configs: Vec<(String, Config)>,
}

#[derive(Default)]
struct Mirror {
    endpoints: Vec<(String, Url)>,
    rewrites: Vec<Rewrite>,
}

#[derive(Default, Clone)]
struct Config {
    login: Option<Login>,
    tls: Option<Tls>,
}

/// Registries by other names: `docker.io` is kept under the name that it is asked by, others under their ports.
fn keys(registry: &str) -> Vec<String> {
    let mut keys = vec![registry.to_owned()];
    match registry {
        "docker.io" => keys.push("registry-1.docker.io".to_owned()),
        "registry-1.docker.io" => keys.push("docker.io".to_owned()),
        other if !other.contains(':') => keys.extend([443, 80].map(|p| format!("{other}:{p}"))),
        _ => {}
    }
    keys.push("*".to_owned());
    keys
}

fn find<'a, T>(list: &'a [(String, T)], registry: &str) -> Option<&'a T> {
    let named = |key: &String| list.iter().find(|(name, _)| name == key).map(|(_, found)| found);
    keys(registry).iter().find_map(named)
}

impl Mirrors {
    pub(crate) fn read(path: &Path, text: &str) -> Result<Mirrors, Error> {
        let yaml: serde_yaml_ng::Value =
            serde_yaml_ng::from_str(text).map_err(|e| Error::new(path, "", e.to_string()))?;
        let value = match Value::from(yaml) {
            Value::Other("null") => Value::Table(Vec::new()),
            other => other,
        };
        let top = Field { file: path, path: String::new(), value: &value };
        let mut all = Mirrors { mirrors: Vec::new(), configs: Vec::new() };
        for (key, field) in top.table()? {
            match key {
                "mirrors" => {
                    // A registry with nothing said is known, too: what is said of "*" is not for it.
                    for (name, field) in field.entries()? {
                        all.mirrors.push((name.to_owned(), mirror(&field)?));
                    }
                }
                "configs" => {
                    for (name, field) in field.table()? {
                        all.configs.push((name.to_owned(), config(&field)?));
                    }
                }
                _ => return Err(field.error("no such field (mirrors and configs are)")),
            }
        }
        Ok(all)
    }

    /// The mirrors of a registry in the file's order, then itself.
    pub(crate) fn endpoints(&self, registry: &str) -> Vec<Endpoint> {
        let mirror = find(&self.mirrors, registry);
        let mut all: Vec<Endpoint> = Vec::new();
        for (_, url) in mirror.iter().flat_map(|mirror| &mirror.endpoints) {
            let known = |e: &Endpoint| e.host == url.host && e.path == root(&url.path);
            if !all.iter().any(known) {
                let rewrites = mirror.map(|m| m.rewrites.clone()).unwrap_or_default();
                all.push(self.endpoint(url, rewrites, registry));
            }
        }
        let own = self.own(registry);
        // The registry is asked as the file has it, where it is there as a mirror of itself.
        let there = all.iter().any(|e| e.mirror_of.is_none() && e.path == own.path);
        if !there {
            all.push(own);
        }
        all
    }

    fn endpoint(&self, url: &Url, rewrites: Vec<Rewrite>, registry: &str) -> Endpoint {
        let config = find(&self.configs, &url.host).cloned().unwrap_or_default();
        let standard = Endpoint::standard(&url.host);
        Endpoint {
            schemes: url.schemes(config.tls.is_some()),
            host: url.host.clone(),
            path: root(&url.path),
            // Changes go to the registry itself.
            can: Can { push: mirror_of(registry, &url.host).is_none(), ..Can::ALL },
            tls: config.tls.unwrap_or(standard.tls),
            headers: Vec::new(),
            rewrites,
            login: config.login,
            dial_timeout: None,
            mirror_of: mirror_of(registry, &url.host),
        }
    }

    fn own(&self, registry: &str) -> Endpoint {
        let config = find(&self.configs, registry).cloned().unwrap_or_default();
        let standard = Endpoint::standard(registry);
        let tls = config.tls.unwrap_or(standard.tls);
        Endpoint { tls, login: config.login, ..standard }
    }
}

/// An API's root: the path of an endpoint that has one is taken as it is.
fn root(path: &str) -> String {
    if path.is_empty() { "/v2".to_owned() } else { path.to_owned() }
}

fn mirror(field: &Field<'_>) -> Result<Mirror, Error> {
    let mut mirror = Mirror::default();
    if field.is_null() {
        return Ok(mirror);
    }
    for (key, field) in field.table()? {
        match key {
            "endpoint" => {
                for item in field.list()? {
                    let text = item.text()?;
                    let url = Url::parse(text).map_err(|why| item.error(why))?;
                    mirror.endpoints.push((text.to_owned(), url));
                }
            }
            "rewrite" => {
                for (pattern, field) in field.table()? {
                    let pattern =
                        regex::Regex::new(pattern).map_err(|e| field.error(e.to_string()))?;
                    mirror
                        .rewrites
                        .push(Rewrite { pattern, replacement: field.text()?.to_owned() });
                }
            }
            _ => return Err(field.error("no such field (endpoint and rewrite are)")),
        }
    }
    Ok(mirror)
}

fn config(field: &Field<'_>) -> Result<Config, Error> {
    let mut config = Config::default();
    for (key, field) in field.table()? {
        match key {
            "auth" => config.login = Some(login(&field)?),
            "tls" => config.tls = Some(tls(&field)?),
            _ => return Err(field.error("no such field (auth and tls are)")),
        }
    }
    Ok(config)
}

fn login(field: &Field<'_>) -> Result<Login, Error> {
    let mut login = Login::default();
    for (key, field) in field.table()? {
        let place = match key {
            "username" => &mut login.username,
            "password" => &mut login.password,
            "auth" => &mut login.auth,
            "identity_token" => &mut login.identity_token,
            _ => return Err(field.error("no such field")),
        };
        field.text()?.clone_into(place);
    }
    Ok(login)
}

fn tls(field: &Field<'_>) -> Result<Tls, Error> {
    let mut tls = Tls::default();
    let (mut certificate, mut key_file) = (None, None);
    for (key, field) in field.table()? {
        match key {
            "ca_file" => tls.authorities = vec![field.file_name()?],
            "cert_file" => certificate = Some(field.file_name()?),
            "key_file" => key_file = Some(field.file_name()?),
            "insecure_skip_verify" => tls.skip_verify = field.flag()?,
            _ => return Err(field.error("no such field")),
        }
    }
    tls.client = match (certificate, key_file) {
        (Some(certificate), Some(key)) => Some(KeyPair { certificate, key }),
        (None, None) => None,
        (Some(_), None) => return Err(field.error("cert_file without key_file")),
        (None, Some(_)) => return Err(field.error("key_file without cert_file")),
    };
    Ok(tls)
}
