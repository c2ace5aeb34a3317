//! `facts.jsonl`: what upstream says to each expression over `{"a": 1, "b": "x"}`: its issues, or
//! its type, its estimated and real cost, and its value or error.

use serde_json::{Value as Json, json};

use super::{declared, environment};
use crate::PER_CALL_LIMIT;
use crate::value::Value;

fn answer(rule: &str) -> Json {
    let decl = declared();
    let mut found = json!({"rule": rule});
    let compiled = match environment(&decl).compile(rule) {
        Ok(compiled) => compiled,
        Err(issues) => {
            found["issues"] = issues.to_string().into();
            return found;
        }
    };
    let estimate = compiled.estimate(Some(&decl));
    found["type"] = shown_type(compiled.output());
    found["min"] = estimate.min.into();
    found["max"] = estimate.max.to_string().into();
    let program = match compiled.program() {
        Ok(program) => program,
        Err(error) => {
            found["program"] = error.to_string().into();
            return found;
        }
    };
    let data = json!({"a": 1, "b": "x"});
    let bindings = vec![Some(Value::of_json(&data, &decl)), None];
    let outcome = program.run(bindings, PER_CALL_LIMIT);
    found["cost"] = outcome.cost.into();
    match outcome.value {
        Ok(value) => found["val"] = value.to_string().into(),
        Err(failure) => found["err"] = failure.to_string().into(),
    }
    found
}

/// Types as upstream's tests print them.
fn shown_type(ty: &crate::Type) -> Json {
    let text = ty.to_string();
    let spelt = match text.as_str() {
        "duration" => "google.protobuf.Duration",
        "timestamp" => "google.protobuf.Timestamp",
        "null" => "null_type",
        other => other,
    };
    spelt.replace("type(timestamp)", "type(google.protobuf.Timestamp)").into()
}

#[test]
fn answers_are_the_originals() {
    let mut different = 0;
    let lines: Vec<&str> = include_str!("facts.jsonl").lines().collect();
    for line in &lines {
        let wanted: Json = serde_json::from_str(line).expect("the table is JSON");
        let found = answer(wanted["rule"].as_str().expect("a rule"));
        if found != wanted {
            different += 1;
            println!("rule:   {}", wanted["rule"]);
            for key in ["issues", "type", "min", "max", "program", "cost", "val", "err"] {
                if found[key] != wanted[key] {
                    println!("  {key}: found {} wanted {}", found[key], wanted[key]);
                }
            }
        }
    }
    assert_eq!(different, 0, "of {}", lines.len());
}
