//! Which of a definition's names it gets, and the conditions that say so (apiextensions'
//! naming and establishing controllers). Pure: the definition and the names others hold, in; its new
//! status, out.

use std::collections::HashSet;

use custom::Names;
use serde_json::{Value, json};

use strategy::conditions::{condition, set_condition};

/// Names that other definitions of the group were given.
#[derive(Debug, Default)]
pub struct Taken {
    resources: HashSet<Box<str>>,
    kinds: HashSet<Box<str>>,
}

impl Taken {
    pub fn add(&mut self, accepted: &Names) {
        let names = [&accepted.plural, &accepted.singular];
        self.resources.extend(names.into_iter().chain(&accepted.short).cloned());
        self.kinds.extend([accepted.kind.clone(), accepted.list_kind.clone()]);
    }
}

/// Is the condition `True`?
pub fn is_true(definition: &Value, kind: &str) -> bool {
    let conditions = definition["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|c| c["type"] == kind && c["status"] == "True")
}

/// The status with names given out and conditions set.
pub fn settle(definition: &Value, taken: &Taken, now: &str) -> Value {
    let mut status = definition["status"].clone();
    let wanted = &definition["spec"]["names"];
    let conflict = give_names(&mut status, wanted, taken);
    let accepted = match &conflict {
        None => condition("NamesAccepted", true, "NoConflicts", "no conflicts found"),
        Some((reason, message)) => condition("NamesAccepted", false, reason, message),
    };
    set_condition(&mut status, accepted, now);
    let established = is_true(definition, "Established") || conflict.is_none();
    let established = match established {
        true => ("InitialNamesAccepted", "the initial names have been accepted"),
        false => ("NotAccepted", "not all names are accepted"),
    };
    let yes = established.0 == "InitialNamesAccepted";
    set_condition(&mut status, condition("Established", yes, established.0, established.1), now);
    status
}

/// Takes over what is free; the last conflict is told.
fn give_names(status: &mut Value, wanted: &Value, taken: &Taken) -> Option<(String, String)> {
    if !status["acceptedNames"].is_object() {
        status["acceptedNames"] = json!({"plural": "", "kind": ""});
    }
    let given = &mut status["acceptedNames"];
    let mut conflict = None;
    for (key, reason, held) in [
        ("plural", "PluralConflict", &taken.resources),
        ("singular", "SingularConflict", &taken.resources),
        ("shortNames", "ShortNamesConflict", &taken.resources),
        ("kind", "KindConflict", &taken.kinds),
        ("listKind", "ListKindConflict", &taken.kinds),
    ] {
        let name = &wanted[key];
        let words = name.as_array().cloned().unwrap_or_else(|| vec![name.clone()]);
        let mine = |word: &&Value| {
            given[key] == **word || given[key].as_array().is_some_and(|l| l.contains(word))
        };
        let other =
            words.iter().filter(|w| !mine(w)).find(|w| held.contains(w.as_str().unwrap_or("")));
        match other {
            Some(word) => {
                let word = word.as_str().unwrap_or("");
                conflict = Some((reason.to_owned(), format!("{word:?} is already in use")));
            }
            None if name.is_null() => drop(given.as_object_mut().map(|g| g.remove(key))),
            None => given[key] = name.clone(),
        }
    }
    match &wanted["categories"] {
        Value::Null => drop(given.as_object_mut().map(|g| g.remove("categories"))),
        categories => given["categories"] = categories.clone(),
    }
    conflict
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition() -> Value {
        json!({"spec": {"names": {"plural": "gizmos", "singular": "gizmo", "kind": "Gizmo", "listKind": "GizmoList", "shortNames": ["gz"]}}})
    }

    #[test]
    fn free_names_are_accepted_and_established() {
        let status = settle(&definition(), &Taken::default(), "T");
        assert_eq!(status["acceptedNames"], definition()["spec"]["names"]);
        let said: Vec<&str> = status["conditions"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|c| c["reason"].as_str())
            .collect();
        assert_eq!(said, ["NoConflicts", "InitialNamesAccepted"]);
    }

    #[test]
    fn a_taken_name_is_told_and_not_served() {
        let mut taken = Taken::default();
        taken.add(&Names::parse(&json!({"plural": "others", "kind": "Gizmo", "listKind": "OtherList", "shortNames": []})));
        let status = settle(&definition(), &taken, "T");
        assert_eq!(status["acceptedNames"]["plural"], "gizmos");
        assert_eq!(status["acceptedNames"]["kind"], "");
        assert_eq!(status["conditions"][0]["reason"], "KindConflict");
        assert_eq!(status["conditions"][0]["message"], "\"Gizmo\" is already in use");
        assert_eq!(status["conditions"][1]["status"], "False");
    }
}
