//! Definitions with rules and what they are told.

use serde_json::{Value, json};
use validation::Check;

const SPEC: &str = "spec.validation.openAPIV3Schema.properties[spec]";

/// The faults of a definition whose `spec` has this schema.
fn faults(spec: &Value) -> Vec<(String, String)> {
    let definition = json!({"spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": {
        "type": "object", "properties": {"spec": spec},
    }}}]}});
    let check = Check::default();
    super::check_rules(&check.root(&definition, None));
    check.into_causes().into_iter().map(|cause| (cause.field, cause.message)).collect()
}

fn with_rule(rule: Value) -> Value {
    json!({
        "type": "object", "x-kubernetes-validations": [rule],
        "properties": {
            "size": {"type": "integer"}, "name": {"type": "string"},
            "names": {"type": "array", "items": {"type": "string"}},
            "few": {"type": "array", "maxItems": 5, "items": {"type": "string", "maxLength": 10}},
        },
    })
}

#[test]
fn rules_are_told_where_they_stand_and_how_they_fail() {
    let shown = |rule: &str| {
        format!(
            "Invalid value: {{\"Rule\":\"{rule}\",\"Message\":\"\",\"MessageExpression\":\"\",\"Reason\":null,\"FieldPath\":\"\",\"OptionalOldSelf\":null}}: "
        )
    };
    for (rule, message) in [
        ("self.size > 0", String::new()),
        ("self.size", shown("self.size") + "cel expression must evaluate to a bool"),
        (
            "self.length > 0",
            shown("self.length \\u003e 0")
                + "compilation failed: ERROR: <input>:1:5: undefined field 'length'\n | self.length > 0\n | ....^",
        ),
        (
            "self.size + self.name == 'x'",
            shown("self.size + self.name == 'x'")
                + "compilation failed: ERROR: <input>:1:11: found no matching overload for '_+_' applied to '(int, string)'\n | self.size + self.name == 'x'\n | ..........^",
        ),
        (
            "int('x') > 0",
            shown("int('x') \\u003e 0")
                + "program instantiation failed: type conversion error from 'string' to 'int'",
        ),
        ("", "Required value: rule is not specified".to_owned()),
        (
            "true\n&& true",
            "Required value: message must be specified if rule contains line breaks".to_owned(),
        ),
    ] {
        let found = faults(&with_rule(json!({"rule": rule})));
        match message.is_empty() {
            true => assert_eq!(found, []),
            false => assert_eq!(found[0].1, message, "{rule}"),
        }
    }
}

#[test]
fn what_stands_beside_a_rule_is_checked() {
    let at = |field: &str| format!("{SPEC}.x-kubernetes-validations[0].{field}");
    for (field, value, message) in [
        ("messageExpression", json!("self.size"), "messageExpression must evaluate to a string"),
        ("messageExpression", json!("self.x"), "undefined field 'x'"),
        ("fieldPath", json!(".nothing"), "must be a valid path"),
        ("fieldPath", json!(".size"), ""),
        ("reason", json!("Because"), "supported values: \"FieldValueDuplicate\""),
        ("message", json!(" "), "must be non-empty if specified"),
        ("optionalOldSelf", json!(true), "may not be set if oldSelf is not used in rule"),
    ] {
        let mut rule = json!({"rule": "self.size > 0"});
        rule[field] = value;
        let found = faults(&with_rule(rule));
        match message.is_empty() {
            true => assert_eq!(found, []),
            false => {
                assert_eq!((found.len(), &found[0].0), (1, &at(field)));
                assert!(found[0].1.contains(message), "{}", found[0].1);
            }
        }
    }
}

#[test]
fn rules_must_not_cost_too_much() {
    let hint = "(try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)";
    let expensive = "self.names.all(a, self.names.all(b, a != b))";
    let found = faults(&with_rule(json!({"rule": expensive})));
    let at = format!("{SPEC}.x-kubernetes-validations[0].rule");
    let many = "exceeds budget by factor of more than 100x";
    let root = "spec.validation.openAPIV3Schema";
    let name = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
    assert_eq!(
        found,
        [
            (at.clone(), format!("Forbidden: estimated rule cost {many} {hint}")),
            (at, "Forbidden: contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema".to_owned()),
            (root.to_owned(), format!("Forbidden: {name} {many} {hint}")),
        ]
    );
    let bounded = "self.few.all(a, self.few.all(b, a != b))";
    assert_eq!(faults(&with_rule(json!({"rule": bounded}))), []);
}

#[test]
fn former_values_are_asked_only_where_there_are_some() {
    let list = |kind: Value| {
        let mut list = json!({
            "type": "array", "maxItems": 3,
            "items": {
                "type": "object", "properties": {"key": {"type": "string", "maxLength": 5}},
                "x-kubernetes-validations": [{"rule": "self.key == oldSelf.key"}],
            },
        });
        list["x-kubernetes-list-type"] = kind;
        json!({"type": "object", "properties": {"list": list}})
    };
    assert_eq!(faults(&list(json!("map"))), []);
    let found = faults(&list(json!("atomic")));
    let within = format!("within {SPEC}.properties[list]");
    assert!(found[0].1.ends_with(&within), "{found:?}");
}
