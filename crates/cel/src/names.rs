//! Names of fields in expressions.

use crate::parser::is_reserved;

/// A field's name as expressions spell it (apiserver `cel.Escape`); `None` if they cannot.
pub fn escaped(name: &str) -> Option<String> {
    if is_reserved(name) {
        return Some(format!("__{name}__"));
    }
    let spellable = |c: char| c.is_ascii_alphanumeric() || "_.-/".contains(c);
    if name.is_empty()
        || name.starts_with(|c: char| c.is_ascii_digit())
        || !name.chars().all(spellable)
    {
        return None;
    }
    let mut out = name.replace("__", "__underscores__");
    for (character, word) in [(".", "__dot__"), ("-", "__dash__"), ("/", "__slash__")] {
        out = out.replace(character, word);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn names_that_rules_cannot_spell_are_escaped() {
        for (name, want) in [
            ("size", Some("size")),
            ("while", Some("__while__")),
            ("var", Some("__var__")),
            ("a.b-c/d", Some("a__dot__b__dash__c__slash__d")),
            ("x__y", Some("x__underscores__y")),
            ("1st", None),
            ("$ref", None),
        ] {
            assert_eq!(escaped(name).as_deref(), want);
        }
    }
}
