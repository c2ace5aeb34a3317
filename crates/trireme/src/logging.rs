//! Logs go to standard error, at `warn` unless `-v` or `TRIREME_LOG` say otherwise; as text, or one JSON object a line
//! with upstream's keys (component-base `logs/json`).

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Flags of every command.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct LoggingFlags {
    /// Form of the log: text or json.
    #[arg(long, global = true, default_value = "text", value_parser = ["text", "json"])]
    logging_format: String,
    /// How much is logged: 0 to 3 say what happens, 4 and 5 details, 6 and more everything. TRIREME_LOG, which names
    /// parts, wins.
    #[arg(short = 'v', long = "v", global = true, value_name = "LEVEL")]
    verbosity: Option<u8>,
}

impl LoggingFlags {
    /// What is logged, as `TRIREME_LOG` would say it.
    fn filter(&self) -> &'static str {
        match self.verbosity {
            None => "warn",
            Some(0..=3) => "info",
            Some(4..=5) => "debug,hyper=info,h2=info,rustls=info",
            Some(6..) => "trace,hyper=debug,h2=debug,rustls=debug",
        }
    }
}

pub(crate) fn start(flags: &LoggingFlags) {
    let filter = EnvFilter::try_from_env("TRIREME_LOG");
    let filter = filter.unwrap_or_else(|_| EnvFilter::new(flags.filter()));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match flags.logging_format.as_str() {
        "json" => log.event_format(Json).init(),
        _ => log.init(),
    }
}

/// One line of JSON for an event.
struct Json;

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        writeln!(writer, "{}", line(event, since.as_micros()))
    }
}

/// Upstream's keys: the time in milliseconds, the place in the code, the message; then the fields. Errors have no
/// verbosity.
fn line(event: &Event<'_>, microseconds: u128) -> Value {
    let meta = event.metadata();
    let mut fields = Fields(Map::new());
    event.record(&mut fields);
    let mut line = Map::new();
    line.insert("ts".into(), (microseconds as f64 / 1000.0).into());
    let place = meta.file().unwrap_or(meta.target());
    let place = place.rsplit_once("crates/").map_or(place, |(_, place)| place);
    line.insert("caller".into(), format!("{place}:{}", meta.line().unwrap_or(0)).into());
    line.insert("msg".into(), fields.0.remove("message").unwrap_or_else(|| "".into()));
    match *meta.level() {
        // As upstream's loggers name the error of an error.
        Level::ERROR => {
            if let Some(error) = fields.0.remove("error") {
                line.insert("err".into(), error);
            }
        }
        level => {
            let v = match level {
                Level::DEBUG => 4,
                Level::TRACE => 6,
                _ => 0,
            };
            line.insert("v".into(), v.into());
        }
    }
    for (key, value) in fields.0 {
        line.entry(key).or_insert(value);
    }
    Value::Object(line)
}

/// An event's fields.
struct Fields(Map<String, Value>);

impl Fields {
    fn keep(&mut self, field: &Field, value: Value) {
        self.0.insert(field.name().to_owned(), value);
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.keep(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.keep(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.keep(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.keep(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.keep(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.keep(field, value.into());
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex, PoisonError};

    use serde_json::Value;

    use super::{Json, LoggingFlags};

    /// Keeps what is logged.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn every_event_is_one_object_with_upstreams_keys() {
        let kept = Kept::default();
        let writer = kept.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_writer(move || writer.clone())
            .event_format(Json)
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(pods = 3, name = "a \"b\"\nc", ready = true, "synced");
            tracing::error!(error = %"gone", ts = 1, "watch ended");
            tracing::debug!("detail");
        });
        let text = kept.0.lock().expect("no panic").clone();
        let text = String::from_utf8(text).expect("UTF-8");
        let lines: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(lines.len(), 3);
        let info = &lines[0];
        assert_eq!((&info["msg"], &info["v"]), (&"synced".into(), &0.into()));
        assert_eq!((&info["pods"], &info["ready"]), (&3.into(), &true.into()));
        assert_eq!(info["name"], "a \"b\"\nc");
        assert!(info["ts"].as_f64().is_some_and(|ts| ts > 1.6e12), "milliseconds");
        assert!(info["caller"].as_str().is_some_and(|c| c.starts_with("trireme/src/logging.rs:")));
        let error = &lines[1];
        assert_eq!((&error["err"], error.get("v")), (&"gone".into(), None));
        assert!(error["ts"].is_f64(), "a field cannot take the place of a key");
        assert_eq!(lines[2]["v"], 4);
    }

    #[test]
    fn verbosity_is_upstreams() {
        let filter = |verbosity| LoggingFlags { logging_format: "text".into(), verbosity }.filter();
        assert_eq!((filter(None), filter(Some(0)), filter(Some(2))), ("warn", "info", "info"));
        assert!(filter(Some(4)).starts_with("debug") && filter(Some(10)).starts_with("trace"));
    }
}
