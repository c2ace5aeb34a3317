//! `/statusz` and `/flagz` of every component (KEP-4827, KEP-4828; apiserver `server/statusz`, `server/flagz`): in
//! text for people, in JSON and YAML for those who name the kind and version in `Accept`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

const GROUP: &str = "config.k8s.io";
/// Versions, and whether each is deprecated.
const VERSIONS: [(&str, bool); 2] = [("v1alpha1", true), ("v1beta1", false)];
/// Folders that say nothing of the component's state.
const NOT_LISTED: [&str; 5] = ["/apis", "/api", "/openid", "/openapi", "/.well-known"];
const NOT_ACCEPTABLE: &str =
    "only the following media types are accepted: application/json, application/yaml, text/plain";

/// What a component tells of itself.
#[derive(Debug, Clone, Default)]
pub struct Component {
    /// In upstream's words, e.g. `kube-scheduler`.
    pub name: String,
    /// Flags and their values, none of which is a secret.
    pub flags: BTreeMap<String, String>,
}

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Page {
    pub code: u16,
    pub content_type: &'static str,
    /// The value of a `Warning` header.
    pub warning: Option<String>,
    pub body: String,
}

/// What `Accept` asks for.
#[derive(Debug, PartialEq, Eq)]
enum Form {
    Text,
    /// Of a version, which may be deprecated.
    Json(&'static str, bool),
    Yaml(&'static str, bool),
}

/// The form that a header asks for; none when there is no such one. A structured one must be named with its group,
/// version and kind.
fn form(accept: &str, kind: &str) -> Option<Form> {
    if accept.trim().is_empty() {
        return Some(Form::Text);
    }
    let mut clauses: Vec<(f32, Vec<&str>)> = accept.split(',').map(clause).collect();
    // Stable: equal ones stay in the client's order.
    clauses.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    clauses.iter().find_map(|(_, parts)| {
        let (media, parameters) = parts.split_first()?;
        let find = |key: &str| {
            let named = parameters.iter().filter_map(|p| p.split_once('='));
            named.filter(|(k, _)| k.trim() == key).map(|(_, value)| value.trim()).next_back()
        };
        let target = (find("g"), find("v"), find("as"));
        let version = || {
            let (group, version, named) = (target.0?, target.1?, target.2?);
            let known = VERSIONS.iter().find(|(known, _)| *known == version)?;
            (group == GROUP && named == kind).then_some(*known)
        };
        match *media {
            "application/json" => version().map(|(v, deprecated)| Form::Json(v, deprecated)),
            "application/yaml" => version().map(|(v, deprecated)| Form::Yaml(v, deprecated)),
            "application/*" | "*/*" if target != (None, None, None) => {
                version().map(|(v, deprecated)| Form::Json(v, deprecated))
            }
            "text/plain" | "text/*" | "*/*" if target == (None, None, None) => Some(Form::Text),
            _ => None,
        }
    })
}

/// A clause's weight, and its parts without it.
fn clause(text: &str) -> (f32, Vec<&str>) {
    let parts: Vec<&str> = text.split(';').map(str::trim).collect();
    let weight = parts.iter().find_map(|part| part.strip_prefix("q=")?.parse().ok());
    (weight.unwrap_or(1.0), parts.into_iter().filter(|part| !part.starts_with("q=")).collect())
}

/// The page of a kind, from its text and its fields.
fn page(accept: &str, kind: &str, text: impl Fn() -> String, tree: impl Fn() -> Value) -> Page {
    let structured = |version: &str, deprecated: bool, content_type, body: String| {
        let page = kind.to_lowercase();
        let told = format!(
            "299 - \"This version of the {page} endpoint is deprecated. Please use a newer version.\""
        );
        debug_assert!(VERSIONS.iter().any(|(known, _)| *known == version));
        Page { code: 200, content_type, warning: deprecated.then_some(told), body }
    };
    let object = |version: &str| {
        let mut object = tree();
        object["kind"] = kind.into();
        object["apiVersion"] = format!("{GROUP}/{version}").into();
        object
    };
    match form(accept, kind) {
        None => {
            let status = json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": NOT_ACCEPTABLE, "reason": "NotAcceptable", "code": 406,
            });
            let content_type = "application/json";
            Page { code: 406, content_type, warning: None, body: status.to_string() }
        }
        Some(Form::Text) => {
            let content_type = "text/plain; charset=utf-8";
            Page { code: 200, content_type, warning: None, body: text() }
        }
        Some(Form::Json(version, deprecated)) => {
            structured(version, deprecated, "application/json", object(version).to_string())
        }
        Some(Form::Yaml(version, deprecated)) => {
            let body = serde_yaml_ng::to_string(&object(version)).unwrap_or_default();
            structured(version, deprecated, "application/yaml", body)
        }
    }
}

fn header(component: &Component, page: &str) -> String {
    let name = &component.name;
    format!(
        "\n{name} {page}\nWarning: This endpoint is not meant to be machine parseable, has no formatting \
         compatibility guarantees and is for debugging purposes only.\n"
    )
}

/// The first folders of paths that say something of the component's state.
fn folders<'p>(paths: impl IntoIterator<Item = &'p str>) -> Vec<String> {
    let folder = |path: &'p str| path.strip_prefix('/')?.split('/').next();
    let named = paths.into_iter().filter_map(folder).filter(|name| !name.is_empty());
    let all: BTreeSet<String> = named.map(|name| format!("/{name}")).collect();
    all.into_iter().filter(|folder| !NOT_LISTED.contains(&folder.as_str())).collect()
}

/// `/statusz`. `paths` are the component's paths; `versions` those of the binary and of the API that it emulates.
pub fn statusz<'p>(
    component: &Component,
    accept: &str,
    paths: impl IntoIterator<Item = &'p str>,
    (binary, emulated): (&str, &str),
) -> Page {
    let (started, up) = start_of_process();
    let paths = folders(paths);
    let text = || {
        let seconds = up.as_secs();
        let (hours, minutes) = (seconds / 3600, (seconds / 60) % 60);
        let listed =
            if paths.is_empty() { String::new() } else { format!("Paths: {}", paths.join(" ")) };
        format!(
            "{}\nStarted: {}\nUp: {hours} hr {minutes:02} min {:02} sec\nGo version: \nBinary version: {binary}\n\
             Emulation version: {emulated}\n{listed}\n",
            header(component, "statusz"),
            unix_date(started),
            seconds % 60,
        )
    };
    let tree = || {
        json!({
            "metadata": {"name": component.name}, "startTime": rfc3339(started),
            "uptimeSeconds": up.as_secs(), "goVersion": "", "binaryVersion": binary,
            "emulationVersion": emulated, "paths": paths,
        })
    };
    page(accept, "Statusz", text, tree)
}

/// `/flagz`.
pub fn flagz(component: &Component, accept: &str) -> Page {
    let text = || {
        let lines = component.flags.iter().map(|(name, value)| format!("{name}={value}\n"));
        header(component, "flagz") + &lines.collect::<String>()
    };
    let tree = || json!({"metadata": {"name": component.name}, "flags": component.flags});
    page(accept, "Flagz", text, tree)
}

/// When the process started, in seconds since 1970, and how long ago that is.
fn start_of_process() -> (u64, Duration) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let text = crate::process_metrics();
    let start = text.lines().find_map(|line| line.strip_prefix("process_start_time_seconds "));
    let start = start.and_then(|figure| figure.parse::<f64>().ok());
    let started = start.map_or(now.as_secs(), |seconds| seconds as u64);
    (started, now.saturating_sub(Duration::from_secs(started)))
}

/// Days since 1970 as year, month and day of the Gregorian calendar (Howard Hinnant's `civil_from_days`).
fn date(days: i64) -> (i64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month.unsigned_abs(), day.unsigned_abs())
}

fn clock(seconds: u64) -> String {
    let day = seconds % 86_400;
    format!("{:02}:{:02}:{:02}", day / 3600, (day / 60) % 60, day % 60)
}

fn days(seconds: u64) -> i64 {
    i64::try_from(seconds / 86_400).unwrap_or(0)
}

fn rfc3339(seconds: u64) -> String {
    let (year, month, day) = date(days(seconds));
    format!("{year:04}-{month:02}-{day:02}T{}Z", clock(seconds))
}

/// Go's `time.UnixDate`.
fn unix_date(seconds: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (year, month, day) = date(days(seconds));
    let weekday = DAYS[days(seconds).rem_euclid(7) as usize];
    let month = MONTHS.get(month as usize - 1).copied().unwrap_or_default();
    format!("{weekday} {month} {day:>2} {} UTC {year}", clock(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn component() -> Component {
        let flags = [("secure-port", "6443"), ("bind-address", "0.0.0.0")];
        let flags = flags.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Component { name: "kube-apiserver".into(), flags: BTreeMap::from(flags) }
    }

    fn status(accept: &str) -> Page {
        let paths =
            ["/", "/api/v1", "/healthz", "/healthz/etcd", "/metrics", "/openapi/v2", "/debug/a/b"];
        statusz(&component(), accept, paths, ("1.36.2", "1.36"))
    }

    #[test]
    fn people_read_text() {
        for accept in ["", "*/*", "text/plain", "text/*", "application/json, text/plain;q=0.1"] {
            let page = status(accept);
            assert_eq!(
                (page.code, page.content_type),
                (200, "text/plain; charset=utf-8"),
                "{accept}"
            );
            let start = "\nkube-apiserver statusz\nWarning: This endpoint is not meant to be machine parseable";
            assert!(page.body.starts_with(start), "{}", page.body);
            assert!(page.body.contains("\nBinary version: 1.36.2\n"));
            assert!(page.body.ends_with("\nPaths: /debug /healthz /metrics\n"), "{}", page.body);
        }
        let page = flagz(&component(), "");
        assert!(page.body.ends_with("\nbind-address=0.0.0.0\nsecure-port=6443\n"), "{}", page.body);
    }

    #[test]
    fn programs_name_the_kind() {
        let page = status("application/json;as=Statusz;v=v1beta1;g=config.k8s.io");
        let tree: Value = serde_json::from_str(&page.body).expect("JSON");
        assert_eq!((page.code, page.content_type, page.warning), (200, "application/json", None));
        assert_eq!(
            (tree["kind"].as_str(), tree["apiVersion"].as_str()),
            (Some("Statusz"), Some("config.k8s.io/v1beta1"))
        );
        assert_eq!(tree["metadata"]["name"], "kube-apiserver");
        assert_eq!(tree["paths"], json!(["/debug", "/healthz", "/metrics"]));
        assert!(tree["uptimeSeconds"].is_u64() && tree["startTime"].is_string());
        let page = flagz(&component(), "application/yaml;g=config.k8s.io;v=v1beta1;as=Flagz");
        assert_eq!(page.content_type, "application/yaml");
        assert!(page.body.contains("secure-port: '6443'"), "{}", page.body);
        let page = flagz(&component(), "application/json;as=Flagz;v=v1alpha1;g=config.k8s.io");
        let warning = page.warning.expect("deprecated");
        assert!(warning.contains("This version of the flagz endpoint is deprecated"), "{warning}");
    }

    #[test]
    fn what_is_not_offered_is_refused() {
        for accept in [
            "application/json",
            "application/yaml",
            "application/json;as=Statusz;v=v1;g=config.k8s.io",
            "application/json;as=Statusz;v=v1beta1;g=apps",
            "application/json;as=Statusz;v=v1beta1",
            "application/json;as=Flagz;v=v1beta1;g=config.k8s.io",
            "text/plain;as=Statusz;v=v1beta1;g=config.k8s.io",
            "application/vnd.kubernetes.protobuf",
            "text/html",
        ] {
            let page = status(accept);
            assert_eq!((page.code, page.content_type), (406, "application/json"), "{accept}");
            assert!(page.body.contains(NOT_ACCEPTABLE) && page.body.contains("NotAcceptable"));
        }
    }

    #[test]
    fn times_are_told_as_go_tells_them() {
        assert_eq!(unix_date(1_136_214_245), "Mon Jan  2 15:04:05 UTC 2006");
        assert_eq!(unix_date(0), "Thu Jan  1 00:00:00 UTC 1970");
        assert_eq!(rfc3339(1_709_208_000), "2024-02-29T12:00:00Z");
    }
}
