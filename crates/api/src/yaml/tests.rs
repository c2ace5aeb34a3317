//! YAML as trees, and the refusals while they grow.

use serde_json::{Value, json};

use super::read;
use crate::limits::DEPTH_MAX;

fn value(text: &str) -> Value {
    read(text.as_bytes()).expect(text).value
}

fn fault(text: &str) -> String {
    read(text.as_bytes()).expect_err("refused")
}

#[test]
fn keys_that_stand_twice() {
    let text = b"\na: 1\nb:\n  foo: 1\n  bar: [{x: 1, x: 2}]\n  foo: {}\nc: &c {k: v}\nd: *c\na: 2\n1: x\n1: y\n";
    assert_eq!(
        read(text).expect("a document").duplicates,
        [
            r#"line 5: key "x" already set in map"#,
            r#"line 6: key "foo" already set in map"#,
            r#"line 9: key "a" already set in map"#,
            "line 11: key 1 already set in map",
        ]
    );
    assert_eq!(value("a: 1\na: 2"), json!({"a": 2}));
}

#[test]
fn nothing_twice() {
    let twice = |text: &[u8]| read(text).expect("a document").duplicates;
    assert!(twice(b"a: {b: 1}\nb: {b: 1}\nc: [b, b]\n").is_empty());
}

#[test]
fn scalars_are_go_yamls() {
    for (text, expected) in [
        ("yes", json!(true)),
        ("Off", json!(false)),
        ("~", Value::Null),
        ("''", json!("")),
        ("'yes'", json!("yes")),
        ("0777", json!(511)),
        ("0o17", json!(15)),
        ("0x1F", json!(31)),
        ("-0b11", json!(-3)),
        ("1_000", json!(1000)),
        ("08", json!(8)),
        ("1e3", json!(1000)),
        (".5", json!(0.5)),
        ("18446744073709551615", json!(18446744073709551615u64)),
        ("2026-11-27", json!("2026-11-27")),
        ("1.2.3", json!("1.2.3")),
        ("-", json!([null])),
        ("!!str 1", json!("1")),
        ("!!float 1", json!(1)),
        ("!!binary aGk=", json!("hi")),
        ("!own 1", json!("1")),
        ("+", json!("+")),
        ("--1", json!("--1")),
    ] {
        assert_eq!(value(text), expected, "{text}");
    }
    assert_eq!(value("{1: a, true: b, 1.5: c}"), json!({"1": "a", "true": "b", "1.5": "c"}));
    assert!(fault("a: .nan").contains("unsupported value: NaN"));
    assert!(fault("!!int x").contains("cannot decode `x` as a !!int"));
    assert!(fault("{[a]: b}").contains("invalid map key"));
    assert!(fault("{~: b}").contains("unsupported map key"));
}

#[test]
fn merged_mappings() {
    let text = "base: &b {p: 1, q: 2}\nown: {<<: *b, q: 3}\nboth: {<<: [*b, {z: 4}]}";
    let read = value(text);
    assert_eq!(read["own"], json!({"p": 1, "q": 3}));
    assert_eq!(read["both"], json!({"p": 1, "q": 2, "z": 4}));
    assert!(fault("{<<: 1}").contains("map merge requires map"));
}

#[test]
fn one_document_is_read() {
    assert_eq!(value("a: 1\n---\nb: [\n"), json!({"a": 1}));
    assert_eq!(value(""), Value::Null);
}

#[test]
fn deep_nesting_is_refused_early() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert!(read(nested(DEPTH_MAX).as_bytes()).is_ok());
    assert!(fault(&nested(DEPTH_MAX + 1)).contains("exceeded max depth"));
    let blocks: String = (0..500).map(|n| format!("{}a:\n", " ".repeat(n))).collect();
    assert!(fault(&blocks).contains("exceeded max depth"));
    for deep in ["[".repeat(3 << 20), "{a: ".repeat(500_000)] {
        let fault = fault(&deep);
        assert!(fault.contains("exceeded max depth"), "{fault}");
    }
}

#[test]
fn aliases_have_a_budget() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for n in 1..12 {
        let refs = vec![format!("*a{}", n - 1); 10].join(", ");
        bomb += &format!("a{n}: &a{n} [{refs}]\n");
    }
    assert!(fault(&bomb).contains("excessive aliasing"));
    // A kilobyte, a hundred thousand times.
    let wide = format!("a: &a '{}'\nb: [{}]", "x".repeat(1024), vec!["*a"; 100_000].join(","));
    assert!(fault(&wide).contains("excessive aliasing"));
    assert!(fault("a: &a [*a]").contains("contains itself"));
}

#[test]
fn aliases_add_their_depth() {
    let mut chain = String::from("a0: &a0 [x]\n");
    for n in 1..200 {
        chain += &format!("a{n}: &a{n} [*a{}]\n", n - 1);
    }
    assert!(fault(&chain).contains("exceeded max depth"));
}

#[test]
fn nested_anchors_are_copies_with_a_cost() {
    let depth = DEPTH_MAX - 1;
    let open: String = (0..depth).map(|n| format!("&a{n} [")).collect();
    let text = format!("{open}'{}'{}", "x".repeat(1 << 20), "]".repeat(depth));
    assert!(fault(&text).contains("too many values"));
}

#[test]
fn small_maps_have_a_budget() {
    assert!(fault(&format!("[{}]", vec!["{a: 1}"; 300_000].join(","))).contains("too many values"));
}
