//! No text makes the parser, checker, estimator or interpreter panic, and none runs away.

use proptest::prelude::*;
use serde_json::json;

use super::{declared, environment};
use crate::value::Value;

/// Anything at all, run as far as it goes.
fn survive(text: &str) {
    let decl = declared();
    let Ok(compiled) = environment(&decl).compile(text) else { return };
    let _ = compiled.estimate(Some(&decl));
    let Ok(program) = compiled.program() else { return };
    let data = json!({"a": 1, "b": "x"});
    let bindings = vec![Some(Value::of_json(&data, &decl)), None];
    let _ = program.run(bindings, 10_000).value.map(|value| value.to_string());
}

fn word() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "self",
        ".a",
        ".b",
        "1",
        "2u",
        "1.5",
        "'x'",
        "b'\\xff'",
        "true",
        "null",
        "[",
        "]",
        "(",
        ")",
        "{",
        "}",
        ",",
        ":",
        "?",
        "+",
        "-",
        "*",
        "/",
        "%",
        "==",
        "<",
        "&&",
        "||",
        "!",
        " in ",
        ".all(x, ",
        ".map(x, ",
        ".filter(x, ",
        ".?",
        "[?",
        "x",
        "has(self.a)",
        "size(",
        "string(",
        "int(",
        "type(",
        ".format([",
        "'%s'",
        "duration('1h')",
        "timestamp('2020-01-01T00:00:00Z')",
        "dyn(",
        ".size()",
        "optional.of(",
        ".value()",
        ".transformMap(k, v, ",
        "lists.range(3)",
        ".sortBy(x, ",
        "quantity('1')",
        ".matches(",
        "ip('1.1.1.1')",
        ".split(",
        ".join()",
        ".optMap(x, ",
    ])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn random_text_does_not_panic(text in "\\PC{0,40}") {
        survive(&text);
    }

    #[test]
    fn random_words_do_not_panic(words in prop::collection::vec(word(), 0..25)) {
        survive(&words.concat());
    }
}

#[test]
fn deep_and_long_texts_are_refused_or_run() {
    for (open, inside, close) in [
        ("(", "1", ")"),
        ("[", "1", "]"),
        ("-", "self.a", ""),
        ("!", "true", ""),
        ("1+", "1", ""),
        ("self.a == 1 && ", "true", ""),
        ("", "self", ".a"),
        ("[1].all(x, ", "true", ")"),
        ("optional.of(1)", "", ".optMap(x, x)"),
        ("true ? 1 : ", "2", ""),
        ("", "'a'", ".trim()"),
    ] {
        for count in [10, 100, 249, 260, 5_000] {
            survive(&format!("{}{inside}{}", open.repeat(count), close.repeat(count)));
        }
    }
}
