//! `TracingConfiguration` (k8s.io/component-base `tracing/api/v1`, apiserver `apis/apiserver`), and what of it is
//! refused.

use serde_json::Value;

const GROUP: &str = "apiserver.config.k8s.io";
const KIND: &str = "TracingConfiguration";
const VERSIONS: [&str; 3] = ["v1", "v1beta1", "v1alpha1"];
const RATE_MAX: i64 = 1_000_000;
/// OTLP's default (https://opentelemetry.io/docs/specs/otlp/).
const ENDPOINT: &str = "localhost:4317";

/// Where spans are sent, and how many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configuration {
    pub endpoint: Endpoint,
    /// Traces that are begun here, out of a million. Traces that others began follow their sampling.
    pub sampling_rate_per_million: u32,
}

/// A collector's address, as gRPC names targets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// `host:port`.
    Tcp(String),
    /// A socket's path.
    Unix(String),
    /// The name of a socket in Linux' abstract namespace.
    Abstract(String),
}

impl Configuration {
    /// Reads the tree of a configuration file. Errors name the field, in upstream's words.
    pub fn parse(file: &Value) -> Result<Configuration, String> {
        let text = |key: &str| file[key].as_str().unwrap_or("");
        let known =
            VERSIONS.iter().any(|version| text("apiVersion") == format!("{GROUP}/{version}"));
        if !known || text("kind") != KIND {
            return Err(format!(
                "unable to decode tracing configuration data: no kind {:?} is registered for version {:?}",
                text("kind"),
                text("apiVersion")
            ));
        }
        let mut fields = file.clone();
        if let Some(map) = fields.as_object_mut() {
            map.remove("apiVersion");
            map.remove("kind");
        }
        from_fields(&fields, "").map_err(|faults| {
            let faults = match faults.as_slice() {
                [one] => one.clone(),
                many => format!("[{}]", many.join(", ")),
            };
            format!("failed to validate tracing configuration: {faults}")
        })
    }
}

/// Reads the fields alone, as other configurations hold them (KubeletConfiguration's `tracing`). `path` is their
/// parent's, for errors.
pub fn from_fields(fields: &Value, path: &str) -> Result<Configuration, Vec<String>> {
    let at = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    let mut faults = Vec::new();
    let Some(map) = fields.as_object() else {
        return Err(vec![format!("{}: Invalid value: must be an object", at(""))]);
    };
    for key in
        map.keys().filter(|key| !matches!(key.as_str(), "endpoint" | "samplingRatePerMillion"))
    {
        faults.push(format!("strict decoding error: unknown field {:?}", at(key)));
    }
    let rate = match map.get("samplingRatePerMillion") {
        None | Some(Value::Null) => 0,
        Some(value) => rate(value).unwrap_or_else(|why| {
            faults.push(format!("{}: Invalid value: {value}: {why}", at("samplingRatePerMillion")));
            0
        }),
    };
    let endpoint = match map.get("endpoint") {
        None | Some(Value::Null) => Ok(Endpoint::Tcp(ENDPOINT.into())),
        Some(Value::String(text)) => Endpoint::parse(text),
        Some(other) => Err((other.to_string(), "must be text".into())),
    };
    match endpoint {
        Ok(endpoint) if faults.is_empty() => {
            Ok(Configuration { endpoint, sampling_rate_per_million: rate })
        }
        Ok(_) => Err(faults),
        Err((value, why)) => {
            faults.push(format!("{}: Invalid value: {value:?}: {why}", at("endpoint")));
            Err(faults)
        }
    }
}

fn rate(value: &Value) -> Result<u32, &'static str> {
    let rate = value.as_i64().ok_or("must be a whole number")?;
    match rate {
        ..0 => Err("sampling rate must be positive"),
        rate if rate > RATE_MAX => {
            Err("sampling rate per million must be less than or equal to one million")
        }
        rate => u32::try_from(rate).map_err(|_| "must be a whole number"),
    }
}

impl Endpoint {
    /// The error has the value that is shown, and why it is refused.
    fn parse(text: &str) -> Result<Endpoint, (String, String)> {
        let shown = if text.contains("//") { text.to_owned() } else { format!("dns://{text}") };
        let refused = |why: String| (shown.clone(), why);
        let (scheme, rest) = shown.split_once("://").unwrap_or(("", shown.as_str()));
        let (authority, path) = match rest.split_once('/') {
            Some((authority, path)) => (authority, path),
            None => (rest, ""),
        };
        match scheme {
            "dns" if !text.contains("//") => Ok(Endpoint::Tcp(address(text).map_err(refused)?)),
            "dns" if !authority.is_empty() => Err(refused(
                "a name server of its own is not supported: use dns:///host:port".into(),
            )),
            "dns" => Ok(Endpoint::Tcp(address(path).map_err(refused)?)),
            "unix" if path.is_empty() => Err(refused("a socket needs a path".into())),
            "unix" => Ok(Endpoint::Unix(format!("{authority}/{path}"))),
            "unix-abstract" if path.is_empty() && authority.is_empty() => {
                Err(refused("a socket needs a name".into()))
            }
            "unix-abstract" if authority.is_empty() => Ok(Endpoint::Abstract(path.to_owned())),
            "unix-abstract" => Ok(Endpoint::Abstract(authority.to_owned())),
            other => Err(refused(format!(
                "unsupported scheme: {other}.  Options are none, dns, unix, or unix-abstract.  See https://github.com/grpc/grpc/blob/master/doc/naming.md"
            ))),
        }
    }
}

/// gRPC's default port is 443; a collector's address always names its own.
fn address(text: &str) -> Result<String, String> {
    let (host, port) = text.rsplit_once(':').ok_or("missing port in address")?;
    if host.is_empty() {
        return Err("missing host in address".into());
    }
    port.parse::<u16>()
        .map_err(|_| format!("parse \"dns://{text}\": invalid port \":{port}\" after host"))?;
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Configuration, Endpoint, from_fields};

    fn parse(fields: Value) -> Result<Configuration, String> {
        let mut file =
            json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "TracingConfiguration"});
        let (map, more) =
            (file.as_object_mut().expect("a map"), fields.as_object().expect("a map"));
        map.extend(more.clone());
        Configuration::parse(&file)
    }

    #[test]
    fn what_is_left_out_has_upstreams_defaults() {
        let read = parse(json!({})).expect("valid");
        assert_eq!(read.endpoint, Endpoint::Tcp("localhost:4317".into()));
        assert_eq!(read.sampling_rate_per_million, 0);
        for version in ["v1beta1", "v1alpha1"] {
            let file = json!({"apiVersion": format!("apiserver.config.k8s.io/{version}"),
                "kind": "TracingConfiguration", "samplingRatePerMillion": 1_000_000});
            let read = Configuration::parse(&file).expect("valid");
            assert_eq!(read.sampling_rate_per_million, 1_000_000, "{version}");
        }
    }

    #[test]
    fn endpoints_are_grpcs_targets() {
        let of = |text: &str| parse(json!({"endpoint": text})).expect(text).endpoint;
        assert_eq!(of("collector.example:4317"), Endpoint::Tcp("collector.example:4317".into()));
        assert_eq!(of("[::1]:4317"), Endpoint::Tcp("[::1]:4317".into()));
        assert_eq!(of("dns:///c:4317"), Endpoint::Tcp("c:4317".into()));
        assert_eq!(of("unix:///run/otel.sock"), Endpoint::Unix("/run/otel.sock".into()));
        assert_eq!(of("unix-abstract:///otel"), Endpoint::Abstract("otel".into()));
    }

    #[test]
    fn what_upstream_refuses_is_refused() {
        for (fields, why) in [
            (
                json!({"samplingRatePerMillion": -1}),
                "failed to validate tracing configuration: samplingRatePerMillion: Invalid value: -1: sampling rate must be positive",
            ),
            (
                json!({"samplingRatePerMillion": 1_000_001}),
                "samplingRatePerMillion: Invalid value: 1000001: sampling rate per million must be less than or equal to one million",
            ),
            (json!({"samplingRatePerMillion": "many"}), "must be a whole number"),
            (
                json!({"endpoint": "http://localhost:4317"}),
                "endpoint: Invalid value: \"http://localhost:4317\": unsupported scheme: http.  Options are none, dns, unix, or unix-abstract.  See https://github.com/grpc/grpc/blob/master/doc/naming.md",
            ),
            (json!({"endpoint": "dn%2fs://localhost:4317"}), "unsupported scheme"),
            (
                json!({"endpoint": "localhost:port"}),
                "endpoint: Invalid value: \"dns://localhost:port\": parse \"dns://localhost:port\": invalid port \":port\" after host",
            ),
            (json!({"endpoint": "localhost"}), "missing port in address"),
            (json!({"endpoint": ":4317"}), "missing host in address"),
            (json!({"endpoint": "dns://8.8.8.8/c:4317"}), "a name server of its own"),
            (json!({"endpoint": "unix://"}), "a socket needs a path"),
            (json!({"endpoint": 4317}), "must be text"),
            (json!({"sampling": 1}), "unknown field \"sampling\""),
        ] {
            let told = parse(fields.clone()).expect_err("refused");
            assert!(told.contains(why), "{fields}: {told}");
        }
        let both = parse(json!({"endpoint": "http://x", "samplingRatePerMillion": -1}));
        assert!(both.expect_err("refused").contains(": [samplingRatePerMillion: "));
        for file in [
            json!({"apiVersion": "apiserver.config.k8s.io/v2", "kind": "TracingConfiguration"}),
            json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "Tracing"}),
            json!([]),
        ] {
            let told = Configuration::parse(&file).expect_err("refused");
            assert!(
                told.starts_with("unable to decode tracing configuration data: no kind"),
                "{told}"
            );
        }
        let told =
            from_fields(&json!({"samplingRatePerMillion": -1}), "tracing").expect_err("refused");
        assert!(told[0].starts_with("tracing.samplingRatePerMillion: "), "{told:?}");
    }
}
