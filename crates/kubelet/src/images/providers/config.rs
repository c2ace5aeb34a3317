//! The configuration of credential providers (`CredentialProviderConfig`): reading, joining, checking.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ring::digest;
use serde::Deserialize;
use serde_json::Value;

const GROUP: &str = "kubelet.config.k8s.io";
const KIND: &str = "CredentialProviderConfig";
/// Versions of the configuration, and (in another group) of what plugins are asked in.
const VERSIONS: [&str; 3] = ["v1", "v1alpha1", "v1beta1"];
pub(super) const V1: &str = "credentialprovider.kubelet.k8s.io/v1";
const API_VERSIONS: [&str; 3] =
    [V1, "credentialprovider.kubelet.k8s.io/v1alpha1", "credentialprovider.kubelet.k8s.io/v1beta1"];
const CACHE_TYPES: [&str; 2] = ["ServiceAccount", "Token"];
/// Longest file, and most files of a folder.
const FILE_MAX: u64 = 1 << 20;
const FILES_MAX: usize = 1000;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct Provider {
    pub(super) name: String,
    pub(super) match_images: Vec<String>,
    default_cache_duration: Option<String>,
    pub(super) api_version: String,
    pub(super) args: Vec<String>,
    pub(super) env: Vec<Variable>,
    pub(super) token_attributes: Option<TokenAttributes>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Variable {
    pub(super) name: String,
    pub(super) value: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct TokenAttributes {
    pub(super) service_account_token_audience: String,
    pub(super) cache_type: String,
    pub(super) require_service_account: Option<bool>,
    pub(super) required_service_account_annotation_keys: Vec<String>,
    pub(super) optional_service_account_annotation_keys: Vec<String>,
}

impl Provider {
    /// How long credentials hold when the plugin does not say.
    pub(super) fn cache_duration(&self) -> Duration {
        let given = self.default_cache_duration.as_deref().and_then(go_duration);
        given
            .and_then(|nanos| u64::try_from(nanos).ok())
            .map_or(Duration::ZERO, Duration::from_nanos)
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Document {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    #[serde(default)]
    providers: Vec<Provider>,
}

/// Nanoseconds of a duration as Go writes it: `10m`, `1h30m`, `-5s`, `1.5s`, `0`.
pub(super) fn go_duration(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut nanos = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        nanos += number
            * match &rest[..unit] {
                "h" => 3.6e12,
                "m" => 6e10,
                "s" => 1e9,
                "ms" => 1e6,
                "us" | "µs" => 1e3,
                "ns" => 1.0,
                _ => return None,
            };
        rest = &rest[unit..];
    }
    // More than 292 years are none.
    (nanos < 9.2e18).then_some((sign * nanos) as i64)
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let failed =
        |e: std::io::Error| format!("unable to read file {:?}: {e}", path.display().to_string());
    let mut data = Vec::new();
    fs::File::open(path).map_err(failed)?.take(FILE_MAX).read_to_end(&mut data).map_err(failed)?;
    Ok(data)
}

/// The file itself, or those of a folder in the order of their names.
fn files(path: &Path) -> Result<Vec<PathBuf>, String> {
    let shown = path.display().to_string();
    if path.as_os_str().is_empty() {
        return Err("credential provider config path is empty".to_owned());
    }
    let meta = fs::metadata(path).map_err(|e| format!("unable to access path {shown:?}: {e}"))?;
    if !meta.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries =
        fs::read_dir(path).map_err(|e| format!("unable to read directory {shown:?}: {e}"))?;
    let is_config = |path: &PathBuf| {
        let known = ["json", "yaml", "yml"];
        path.extension().and_then(|e| e.to_str()).is_some_and(|e| known.contains(&e))
            && !path.is_dir()
    };
    let entries = entries.flatten().take(FILES_MAX).map(|entry| entry.path());
    let mut found: Vec<_> = entries.filter(is_config).collect();
    found.sort();
    match found.is_empty() {
        true => Err(format!("no configuration files found in directory {shown:?}")),
        false => Ok(found),
    }
}

fn decode(data: &[u8]) -> Result<Vec<Provider>, String> {
    let value: Value = api::yaml::read(data).map(|document| document.value)?;
    let text = |name: &str| value[name].as_str().unwrap_or("").to_owned();
    let (version, kind) = (text("apiVersion"), text("kind"));
    if kind != KIND {
        return Err(format!("failed to decode {kind:?} (wrong Kind)"));
    }
    let (group, version) = version.split_once('/').unwrap_or(("", &version));
    if group != GROUP {
        return Err(format!(
            "failed to decode CredentialProviderConfig, unexpected Group: {group}"
        ));
    }
    if !VERSIONS.contains(&version) {
        return Err(format!("no kind {KIND:?} is registered for version \"{group}/{version}\""));
    }
    let document: Document =
        serde_json::from_value(value).map_err(|e| format!("strict decoding error: {e}"))?;
    Ok(document.providers)
}

/// All providers, and the hash of all files.
pub(super) fn load(path: &Path) -> Result<(Vec<Provider>, String), String> {
    let mut hash = digest::Context::new(&digest::SHA256);
    let mut all = Vec::<Provider>::new();
    for file in files(path)? {
        let data = read(&file)?;
        hash.update(&(data.len() as u64).to_be_bytes());
        hash.update(&data);
        let found = decode(&data).map_err(|why| {
            format!("error decoding config {:?}: {why}", file.display().to_string())
        })?;
        for provider in found {
            if all.iter().any(|other| other.name == provider.name) {
                let name = &provider.name;
                return Err(format!(
                    "duplicate provider name {name:?} found in configuration file(s)"
                ));
            }
            all.push(provider);
        }
    }
    let hex = |text: String, byte: &u8| format!("{text}{byte:02x}");
    let hash = hash.finish().as_ref().iter().fold("sha256:".to_owned(), hex);
    let faults = check(&all);
    let text = match faults.as_slice() {
        [] => return Ok((all, hash)),
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    };
    Err(format!("failed to validate credential provider config: {text}"))
}

fn invalid(field: &str, value: &str, why: &str) -> String {
    format!("{field}: Invalid value: {value:?}: {why}")
}

fn required(field: &str, why: &str) -> String {
    match why {
        "" => format!("{field}: Required value"),
        why => format!("{field}: Required value: {why}"),
    }
}

fn not_supported(field: &str, value: &str, known: &[&str]) -> String {
    let known: Vec<_> = known.iter().map(|k| format!("{k:?}")).collect();
    format!("{field}: Unsupported value: {value:?}: supported values: {}", known.join(", "))
}

/// The faults, in upstream's words (`validateCredentialProviderConfig`).
pub(super) fn check(providers: &[Provider]) -> Vec<String> {
    let mut faults = Vec::new();
    if providers.is_empty() {
        faults.push(required("providers", "at least 1 item in plugins is required"));
    }
    for (index, provider) in providers.iter().enumerate() {
        let earlier = &providers[..index];
        check_name(provider, earlier, &mut faults);
        match provider.api_version.as_str() {
            "" => faults.push(required("providers.apiVersion", "")),
            known if API_VERSIONS.contains(&known) => {}
            other => faults.push(not_supported("providers.apiVersion", other, &API_VERSIONS)),
        }
        if provider.match_images.is_empty() {
            let why = "at least 1 item in matchImages is required";
            faults.push(required("providers.matchImages", why));
        }
        for image in &provider.match_images {
            if let Err(why) = schemeless_url(image) {
                let why = format!("match image is invalid: {why}");
                faults.push(invalid("providers.matchImages", image, &why));
            }
        }
        check_duration(provider, &mut faults);
        if let Some(attributes) = &provider.token_attributes {
            check_attributes(provider, attributes, &mut faults);
        }
    }
    faults
}

fn check_name(provider: &Provider, earlier: &[Provider], faults: &mut Vec<String>) {
    let name = &provider.name;
    let whys = [
        (name.contains('/'), "provider name cannot contain '/'"),
        (name.contains(' '), "provider name cannot contain spaces"),
        (name == ".", "provider name cannot be '.'"),
        (name == "..", "provider name cannot be '..'"),
    ];
    let whys = whys.into_iter().filter(|(is, _)| *is);
    faults.extend(whys.map(|(_, why)| invalid("providers.name", name, why)));
    if earlier.iter().any(|other| other.name == *name) {
        faults.push(format!("providers.name: Duplicate value: {name:?}"));
    }
}

fn check_duration(provider: &Provider, faults: &mut Vec<String>) {
    let field = "providers.defaultCacheDuration";
    match provider.default_cache_duration.as_deref() {
        None => faults.push(required(field, "")),
        Some(text) => match go_duration(text) {
            None => faults.push(invalid(field, text, "invalid duration")),
            Some(nanos) if nanos < 0 => {
                faults.push(invalid(field, text, "must be greater than or equal to 0"));
            }
            Some(_) => {}
        },
    }
}

fn check_attributes(provider: &Provider, own: &TokenAttributes, faults: &mut Vec<String>) {
    let field = "providers.tokenAttributes";
    let at = |name: &str| format!("{field}.{name}");
    if own.service_account_token_audience.is_empty() {
        faults.push(required(&at("serviceAccountTokenAudience"), ""));
    }
    if own.require_service_account.is_none() {
        faults.push(required(&at("requireServiceAccount"), ""));
    }
    if provider.api_version != V1 {
        faults.push(format!(
            "{field}: Forbidden: tokenAttributes is only supported for {V1} API version"
        ));
    }
    let (needed, optional) = (
        &own.required_service_account_annotation_keys,
        &own.optional_service_account_annotation_keys,
    );
    let needed_field = at("requiredServiceAccountAnnotationKeys");
    if own.require_service_account == Some(false) && !needed.is_empty() {
        faults.push(format!(
            "{needed_field}: Forbidden: requireServiceAccount cannot be false when requiredServiceAccountAnnotationKeys is set"
        ));
    }
    check_keys(&needed_field, needed, faults);
    check_keys(&at("optionalServiceAccountAnnotationKeys"), optional, faults);
    let both: BTreeSet<_> = needed.iter().filter(|key| optional.contains(key)).collect();
    if !both.is_empty() {
        let shown = serde_json::to_string(&both).unwrap_or_default();
        let why = "annotation keys cannot be both required and optional";
        faults.push(format!("{field}: Invalid value: {shown}: {why}"));
    }
    let field = at("cacheType");
    match own.cache_type.as_str() {
        "" => faults.push(required(
            &field,
            &format!(
                "cacheType is required to be set when tokenAttributes is specified. Supported values are: {}",
                CACHE_TYPES.join(", ")
            ),
        )),
        known if CACHE_TYPES.contains(&known) => {}
        other => faults.push(not_supported(&field, other, &CACHE_TYPES)),
    }
}

fn check_keys(field: &str, keys: &[String], faults: &mut Vec<String>) {
    for (index, key) in keys.iter().enumerate() {
        let whys = api::names::qualified_name(&key.to_lowercase());
        faults.extend(whys.iter().map(|why| invalid(field, key, why)));
        if keys[..index].contains(key) {
            faults.push(format!("{field}: Duplicate value: {key:?}"));
        }
    }
}

/// The error of Go's `url.Parse` for it behind `https://`.
fn schemeless_url(text: &str) -> Result<(), String> {
    let parse = |why: String| format!("parse {:?}: {why}", format!("https://{text}"));
    if text.chars().any(|c| c.is_ascii_control()) {
        return Err(parse("net/url: invalid control character in URL".into()));
    }
    let host = text.split(['/', '?', '#']).next().unwrap_or_default();
    for (at, _) in text.match_indices('%') {
        let escape = text.get(at..(at + 3).min(text.len())).unwrap_or("%");
        let is_hex = escape.len() == 3 && escape[1..].bytes().all(|b| b.is_ascii_hexdigit());
        if !is_hex || at < host.len() {
            return Err(parse(format!("invalid URL escape {escape:?}")));
        }
    }
    if let Some(bad) = host.chars().find(|c| " \"<>^`{}|\\".contains(*c)) {
        return Err(parse(format!("invalid character {:?} in host name", bad.to_string())));
    }
    let after = host.rsplit_once(']').map_or(host, |(_, after)| after);
    if let Some((_, port)) = after.split_once(':')
        && !port.bytes().all(|b| b.is_ascii_digit())
    {
        return Err(parse(format!("invalid port {:?} after host", format!(":{port}"))));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
