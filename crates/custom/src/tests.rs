//! Rules over schemas, with upstream's answers: `tests/facts.jsonl` has of each its issues, or its
//! type, its estimated and real cost, and its value or error; `tests/facts.json` schemas and data.

use std::sync::Arc;

use cel::{Binding, Decl, Env, Objects, PER_CALL_LIMIT, Type, Value as Cel};
use serde_json::{Value, json};

use crate::declared::declare;
use crate::node::Node;

fn declared(schema: &Value, is_root: bool) -> Decl {
    let mut node = Node::parse(schema).expect("a schema");
    node.embedded |= is_root;
    declare(&node, "selfType").expect("a declared type")
}

#[test]
fn compilations_and_evaluations_are_timed() {
    let schema = json!({"type": "object", "properties": {"spec": {
        "type": "object", "properties": {"n": {"type": "integer"}},
        "x-kubernetes-validations": [{"rule": "self.n > 1"}],
    }}});
    let mut node = Node::parse(&schema).expect("a schema");
    crate::rules::compile(&mut node);
    let object = json!({"spec": {"n": 1}});
    let faults = validation::Check::default();
    crate::rules::check(&node, &faults.root(&object, None));
    assert_eq!(faults.into_causes().len(), 1, "the rule ran");
    let told = crate::figures();
    for name in ["compilation", "evaluation"] {
        let count = format!("apiserver_cel_{name}_duration_seconds_count ");
        let count = told.lines().find_map(|line| line.strip_prefix(&count));
        assert!(count.is_some_and(|n| n != "0"), "{told}");
    }
}

fn answer(fact: &Value, shared: &Value) -> Value {
    let schema = &shared["schemas"][fact["schema"].as_u64().unwrap_or(0) as usize];
    let decl = declared(schema, fact["root"] == true);
    let optional = fact["opt"] == true;
    let old_type = if optional { Type::optional(decl.ty.clone()) } else { decl.ty.clone() };
    let env = Env::new(Arc::new(Objects::of(&decl)));
    let env = env.with("self", decl.ty.clone()).with("oldSelf", old_type);
    let rule = fact["rule"].as_str().expect("a rule");
    let compiled = match env.compile(rule) {
        Ok(compiled) => compiled,
        Err(issues) => return json!({"issues": issues.to_string()}),
    };
    let estimate = compiled.estimate(Some(&decl));
    let mut found = json!({
        "type": compiled.output().to_string(),
        "min": estimate.min, "max": estimate.max.to_string(),
    });
    let program = match compiled.program() {
        Ok(program) => program,
        Err(error) => {
            found["program"] = error.to_string().into();
            return found;
        }
    };
    let data = if fact["data"] == true { shared } else { fact };
    let old = data.get("old").map(|old| Cel::of_json(old, &decl));
    let old: Binding<'_> = match optional {
        false => old,
        true => Some(old.transpose().map(Cel::optional)),
    };
    let outcome = program.run(vec![Some(Cel::of_json(&data["self"], &decl)), old], PER_CALL_LIMIT);
    found["cost"] = outcome.cost.into();
    match outcome.value {
        Ok(value) => found["val"] = value.to_string().into(),
        Err(failure) => found["err"] = failure.to_string().into(),
    }
    found
}

#[test]
fn answers_are_the_originals() {
    let shared: Value = serde_json::from_str(include_str!("tests/facts.json")).expect("JSON");
    let lines: Vec<&str> = include_str!("tests/facts.jsonl").lines().collect();
    let mut different = 0;
    for line in &lines {
        let fact: Value = serde_json::from_str(line).expect("the table is JSON");
        let (found, wanted) = (answer(&fact, &shared), &fact["answer"]);
        if found != *wanted {
            different += 1;
            println!("rule:   {} (schema {})", fact["rule"], fact["schema"]);
            for key in ["issues", "type", "min", "max", "program", "cost", "val", "err"] {
                if found[key] != wanted[key] {
                    println!("  {key}: found {} wanted {}", found[key], wanted[key]);
                }
            }
        }
    }
    assert_eq!(different, 0, "of {}", lines.len());
}
