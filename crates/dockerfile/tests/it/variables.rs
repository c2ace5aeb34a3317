//! Variables in arguments.

use std::collections::BTreeMap;

use dockerfile::expand::Lexer;

fn expand(text: &str) -> Result<String, String> {
    let values = [("A", "one"), ("P", "/usr/lib/x.tar.gz"), ("E", "")];
    let values: BTreeMap<String, String> =
        values.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Lexer::new('\\').word(text, &values).map_err(|e| e.to_string())
}

#[test]
fn every_form_has_its_value() {
    for (text, want) in [
        ("$A-${A}", "one-one"),
        ("${N-x}${E-x}", "x"),
        ("${N:-x}${E:-y}", "xy"),
        ("${A+x}${N+y}${E+z}", "xz"),
        ("${A:+x}${E:+z}", "x"),
        ("${A?no}", "one"),
        ("${P#*/}", "usr/lib/x.tar.gz"),
        ("${P##*/}", "x.tar.gz"),
        ("${P%.*}", "/usr/lib/x.tar"),
        ("${P%%.*}", "/usr/lib/x"),
        ("${P/lib/LIB}", "/usr/LIB/x.tar.gz"),
        ("${P//r/R}", "/usR/lib/x.taR.gz"),
        ("${P//\\//_}", "_usr_lib_x.tar.gz"),
        ("${P/?.tar/'$1'}", "/usr/lib/$1.gz"),
        ("${N:-${M:-${A}}}", "one"),
        ("'$A' \"$A\" \\$A", "$A one $A"),
        ("${N#x}", ""),
    ] {
        assert_eq!(expand(text).as_deref(), Ok(want), "{text}");
    }
}

#[test]
fn bad_forms_are_refused_with_the_reason() {
    for (text, want) in [
        ("${", "missing '}'"),
        ("${A", "missing '}'"),
        ("${}", "bad substitution"),
        ("${A:=x}", "unsupported modifier (:=)"),
        ("${A:#x}", "unsupported modifier (:#)"),
        ("${A^}", "unsupported modifier (^)"),
        ("${N?must be there}", "N: must be there"),
        ("${N?}", "N: is not allowed to be unset"),
        ("${E:?}", "E: is not allowed to be empty"),
        ("${A/x}", "missing '/'"),
        ("${A#\\x}", "invalid escape"),
        ("'x", "single-quote"),
        ("\"x", "double-quote"),
    ] {
        let error = expand(text).unwrap_err();
        assert!(error.contains(want), "{text}: {error}");
    }
}

#[test]
fn nesting_ends() {
    let deep = "${N:-".repeat(20_000);
    assert!(expand(&deep).unwrap_err().contains("deeper"), "no end of nesting");
    let stars = format!("${{P#{}b}}", "*a".repeat(2_000));
    assert_eq!(expand(&stars).as_deref(), Ok("/usr/lib/x.tar.gz"));
}
