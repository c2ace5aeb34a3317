//! Selectors as tables show them.

use serde_json::Value;

use validation::{items, text};

/// A map of labels (apimachinery `labels.FormatLabels`).
pub(super) fn labels(map: &Value) -> String {
    let pairs = map.as_object().into_iter().flatten();
    or_none(pairs.map(|(key, value)| format!("{key}={}", text(value))).collect())
}

/// A label selector (`metav1.FormatLabelSelector`).
pub(super) fn selector(value: &Value) -> String {
    match requirements(value) {
        Some(all) => or_none(all),
        None => "<error>".into(),
    }
}

/// A label selector, empty when it selects everything or nothing; `None` when it is malformed.
pub fn plain_selector(value: &Value) -> Option<String> {
    Some(requirements(value)?.join(","))
}

/// A label selector as Go's generated `String` methods show it.
pub(super) fn debug_selector(value: &Value) -> String {
    let mut shown = String::from("&LabelSelector{MatchLabels:map[string]string{");
    for (key, value) in value["matchLabels"].as_object().into_iter().flatten() {
        shown += &format!("{key}: {},", text(value));
    }
    shown += "},MatchExpressions:[]LabelSelectorRequirement{";
    for requirement in items(value, "matchExpressions") {
        let values: Vec<&str> = items(requirement, "values").map(text).collect();
        let (key, operator) = (text(&requirement["key"]), text(&requirement["operator"]));
        shown += &format!(
            "LabelSelectorRequirement{{Key:{key},Operator:{operator},Values:[{}],}},",
            values.join(" ")
        );
    }
    shown + "},}"
}

fn or_none(all: Vec<String>) -> String {
    if all.is_empty() { "<none>".into() } else { all.join(",") }
}

/// The requirements by their keys.
fn requirements(selector: &Value) -> Option<Vec<String>> {
    let mut all: Vec<(&str, String)> = Vec::new();
    for (key, value) in selector["matchLabels"].as_object().into_iter().flatten() {
        all.push((key, format!("{key}={}", text(value))));
    }
    for requirement in items(selector, "matchExpressions") {
        let key = text(&requirement["key"]);
        let mut values: Vec<&str> = items(requirement, "values").map(text).collect();
        values.sort_unstable();
        let shown = match text(&requirement["operator"]) {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "Exists" => key.to_owned(),
            "DoesNotExist" => format!("!{key}"),
            _ => return None,
        };
        all.push((key, shown));
    }
    all.sort_by_key(|(key, _)| *key);
    Some(all.into_iter().map(|(_, shown)| shown).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn selectors_show_their_expressions() {
        let value = json!({"matchLabels": {"m": "1"}, "matchExpressions": [
            {"key": "z", "operator": "DoesNotExist"},
            {"key": "a", "operator": "In", "values": ["c", "b"]},
            {"key": "n", "operator": "NotIn", "values": ["x"]},
            {"key": "e", "operator": "Exists"}]});
        assert_eq!(selector(&value), "a in (b,c),e,m=1,n notin (x),!z");
        assert_eq!(selector(&json!({})), "<none>");
        assert_eq!(plain_selector(&Value::Null).as_deref(), Some(""));
        let odd = json!({"matchExpressions": [{"key": "a", "operator": "Near"}]});
        assert_eq!(selector(&odd), "<error>");
        assert_eq!(labels(&json!({"b": "2", "a": ""})), "a=,b=2");
        let shown = debug_selector(&json!({"matchLabels": {"a": "b"},
            "matchExpressions": [{"key": "k", "operator": "In", "values": ["x", "y"]}]}));
        assert_eq!(
            shown,
            "&LabelSelector{MatchLabels:map[string]string{a: b,},MatchExpressions:[]LabelSelectorRequirement{LabelSelectorRequirement{Key:k,Operator:In,Values:[x y],},},}"
        );
    }
}
