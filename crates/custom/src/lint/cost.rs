//! How much the rules of a definition may cost by their estimates, each and together.

use serde_json::Value;
use validation::At;

/// The most one rule may cost for all values of its place (`StaticEstimatedCostLimit`).
pub(super) const RULE_MAX: u64 = 10_000_000;
/// The most all rules of a schema may cost together (`StaticEstimatedCRDCostLimit`).
const SCHEMA_MAX: u64 = 100_000_000;
/// So many of the most expensive rules are told, if each is at least a hundredth of the limit.
const TOLD: usize = 4;

/// How many values of a place there can be; `None` if nothing bounds them.
pub(super) type Cardinality = Option<u64>;

/// … of the fields, items or values below a place.
pub(super) fn of_parts(schema: &Value, most: Cardinality) -> Cardinality {
    let limit = |key: &str| schema[key].as_i64().map(|limit| u64::try_from(limit).unwrap_or(0));
    let factor = match schema["type"].as_str() {
        Some("object") if !schema["additionalProperties"].is_null() => limit("maxProperties"),
        Some("array") => limit("maxItems"),
        _ => Some(1),
    };
    Some(most?.saturating_mul(factor?))
}

/// The costs of one schema's rules.
#[derive(Default)]
pub(super) struct Total {
    sum: u64,
    most_expensive: Vec<(u64, String)>,
}

impl Total {
    pub(super) fn add(&mut self, place: String, cost: u64) {
        self.sum = self.sum.saturating_add(cost);
        if cost < SCHEMA_MAX / 100 {
            return;
        }
        self.most_expensive.push((cost, place));
        self.most_expensive.sort_by_key(|(cost, _)| std::cmp::Reverse(*cost));
        self.most_expensive.truncate(TOLD);
    }

    pub(super) fn tell(&self, schema: &At<'_>) {
        if self.sum <= SCHEMA_MAX {
            return;
        }
        for (_, place) in &self.most_expensive {
            let message = "Forbidden: contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
            schema.report_at(place, "FieldValueForbidden", message);
        }
        let name = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        schema.forbidden(&exceeds(name, self.sum, SCHEMA_MAX));
    }
}

/// By how much a cost exceeds its limit.
pub(super) fn exceeds(name: &str, cost: u64, limit: u64) -> String {
    let factor = cost as f64 / limit as f64;
    let factor = match factor {
        f if f > 100.0 => "more than 100x".to_owned(),
        f if f < 1.5 => format!("{f:.6}x"),
        f => format!("{f:.1}x"),
    };
    format!(
        "{name} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
    )
}
