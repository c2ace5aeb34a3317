//! Printers: the columns that `kubectl get` shows of a kind and the function that makes its cells, and
//! the form in which etcd holds built-in objects (`stored`).

use std::collections::BTreeMap;
use std::sync::LazyLock;

use api::registry::Resource;
use jiff::Timestamp;
use serde_json::Value;

use validation::{items, text};

mod autoscaler;
mod core;
mod networking;
mod others;
mod pods;
mod selectors;
mod workloads;

pub mod stored;

pub use selectors::plain_selector;

/// One column; `@Type#field` as its description means that of the field.
#[derive(Debug)]
pub struct Column {
    pub name: &'static str,
    pub kind: &'static str,
    pub format: &'static str,
    /// 1: only wide output shows it.
    pub priority: u8,
    pub description: &'static str,
}

type Cells = fn(&Value) -> Vec<Value>;

/// A kind's printer.
#[derive(Clone, Copy)]
pub struct Printer {
    pub columns: &'static [Column],
    pub cells: Cells,
}

/// The description of every object's age.
pub const CREATION: &str = "@meta.v1.ObjectMeta#creationTimestamp";

pub static NAME: Column = Column {
    name: "Name",
    kind: "string",
    format: "name",
    priority: 0,
    description: "@meta.v1.ObjectMeta#name",
};

static PLAIN: LazyLock<Vec<Column>> = LazyLock::new(|| {
    let created =
        Column { name: "Created At", kind: "date", description: CREATION, format: "", priority: 0 };
    vec![Column { ..NAME }, created]
});

/// Columns by `resource.group`.
static COLUMNS: LazyLock<BTreeMap<&str, Vec<Column>>> = LazyLock::new(|| {
    let mut all = BTreeMap::new();
    let mut kind = "";
    for line in include_str!("../columns.txt").lines().filter(|l| !l.starts_with('#')) {
        match line.strip_prefix("  ") {
            None => kind = line,
            Some(column) => all.entry(kind).or_insert_with(Vec::new).push(parse(column)),
        }
    }
    all
});

fn parse(line: &'static str) -> Column {
    let mut parts = line.splitn(5, '|');
    let mut part = || parts.next().expect("a column has five parts");
    let (name, kind, format) = (part(), part(), part());
    let priority = part().parse().expect("a priority is a number");
    Column { name, kind, format, priority, description: part() }
}

/// Conditions of an object's row in a table.
pub fn row_conditions(row: &Resource, object: &Value) -> Option<Value> {
    match (row.group, row.name) {
        ("", "pods") => pods::row_conditions(object),
        _ => None,
    }
}

/// How a resource is printed; name and age when nothing more is known of it.
pub fn printer(row: &Resource) -> Printer {
    if row.subresource == "scale" {
        return Printer { columns: &COLUMNS["scales.autoscaling"], cells: workloads::scale };
    }
    let columns = match row.group {
        "" => COLUMNS.get(row.name),
        group => COLUMNS.get(&*format!("{}.{group}", row.name)),
    };
    let cells = core::cells(row)
        .or_else(|| workloads::cells(row))
        .or_else(|| networking::cells(row))
        .or_else(|| others::cells(row));
    match columns {
        None => Printer {
            columns: &PLAIN,
            cells: |o| vec![name(o), o["metadata"]["creationTimestamp"].clone()],
        },
        Some(columns) => Printer { columns, cells: cells.unwrap_or(|o| vec![name(o), age(o)]) },
    }
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

/// A text, or what stands for an empty one.
fn or_text<'a>(value: &'a Value, none: &'a str) -> &'a str {
    match text(value) {
        "" => none,
        text => text,
    }
}

/// The first few items, and how many more there are of `count`.
fn few(all: &[String], count: usize, most: usize) -> String {
    match count > most {
        true => format!("{} + {} more...", all[..most].join(","), count - most),
        false => all.join(","),
    }
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
    use api::registry::Registry;
    use serde_json::json;

    use super::{human, printer};

    #[test]
    fn every_kind_has_a_cell_for_each_column() {
        for row in Registry::built_in().rows().iter().filter(|row| row.subresource.is_empty()) {
            let printer = printer(row);
            let cells = (printer.cells)(&json!({"metadata": {"name": "a"}}));
            // Upstream gives addresses an age that no column names.
            let extra = usize::from(row.name == "ipaddresses");
            assert_eq!(cells.len(), printer.columns.len() + extra, "{} {}", row.group, row.name);
        }
    }

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
