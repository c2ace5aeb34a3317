//! What `kubectl get` prints of a kind: its columns, and a function that makes the cells.

use api::registry::Resource;
use jiff::Timestamp;
use serde_json::Value;

use crate::value::{items, text};

mod core;
mod workloads;

/// Name, type, format, and whether only wide output shows it.
pub type Column = (&'static str, &'static str, &'static str, bool);

/// A kind's printer.
#[derive(Clone, Copy)]
pub struct Printer {
    pub columns: &'static [Column],
    pub cells: fn(&Value) -> Vec<Value>,
}

/// Every kind's first column.
pub const NAME: Column = ("Name", "string", "name", false);
const AGE: Column = ("Age", "string", "", false);
const CREATED: Column = ("Created At", "date", "", false);

static PLAIN: Printer = Printer { columns: &[NAME, AGE], cells: |o| vec![name(o), age(o)] };

/// How a resource is printed; name and age when nothing more is known of it.
pub fn printer(row: &Resource) -> Printer {
    let found = core::printer(row).or_else(|| workloads::printer(row));
    found.unwrap_or(PLAIN)
}

fn name(object: &Value) -> Value {
    object["metadata"]["name"].clone()
}

/// The age of an object, as `kubectl` prints it.
pub fn age(object: &Value) -> Value {
    since(&object["metadata"]["creationTimestamp"]).into()
}

/// Time since a timestamp, as `kubectl` prints it.
pub fn since(stamp: &Value) -> String {
    let parsed = stamp.as_str().and_then(|t| t.parse::<Timestamp>().ok());
    parsed.map_or("<unknown>".into(), |at| human(Timestamp::now().duration_since(at).as_secs()))
}

/// apimachinery `duration.HumanDuration`.
fn human(seconds: i64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two = |a: i64, unit: &str, b: i64, small: &str| {
        if b == 0 { format!("{a}{unit}") } else { format!("{a}{unit}{b}{small}") }
    };
    match seconds {
        ..=-2 => "<invalid>".into(),
        -1 => "0s".into(),
        0..120 => format!("{seconds}s"),
        _ if minutes < 10 => two(minutes, "m", seconds % 60, "s"),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => two(hours, "h", minutes % 60, "m"),
        _ if hours < 48 => format!("{hours}h"),
        _ if days < 8 => two(days, "d", hours % 24, "h"),
        _ if days < 730 => format!("{days}d"),
        _ if days < 2920 => two(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or(0)
}

/// `a,b` of a list's texts, or `<none>`.
fn joined<'a>(values: impl Iterator<Item = &'a str>) -> String {
    let all: Vec<&str> = values.collect();
    if all.is_empty() { "<none>".into() } else { all.join(",") }
}

/// A selector as `kubectl` prints it.
fn selector(value: &Value) -> String {
    let labels = if value["matchLabels"].is_object() { &value["matchLabels"] } else { value };
    let pairs = labels.as_object().into_iter().flatten();
    let pairs = pairs.filter_map(|(k, v)| Some(format!("{k}={}", v.as_str()?)));
    let all: Vec<String> = pairs.collect();
    if all.is_empty() { "<none>".into() } else { all.join(",") }
}

/// Names and images of a pod template's containers.
fn containers(spec: &Value) -> (String, String) {
    let all = || items(spec, "containers");
    let names: Vec<&str> = all().map(|c| text(&c["name"])).collect();
    let images: Vec<&str> = all().map(|c| text(&c["image"])).collect();
    (names.join(","), images.join(","))
}

#[cfg(test)]
mod tests {
    use super::human;

    #[test]
    fn durations_read_as_kubectls() {
        for (seconds, expected) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (599, "9m59s"),
            (3600, "60m"),
            (10_800, "3h"),
            (90_000, "25h"),
            (691_200, "8d"),
        ] {
            assert_eq!(human(seconds), expected);
        }
    }
}
