//! Feature gates of the controllers and the scheduler: they are what they are in v1.36 by default. To say so is
//! no error; to want otherwise is one that names the gate.

/// A gate, its default in v1.36, and `locked` if upstream refuses to change it, a line.
const GATES: &str = include_str!("gates.txt");

/// Checks one `Gate=true` of `--feature-gates`.
pub(crate) fn gate(text: &str) -> Result<String, String> {
    let (name, value) =
        text.trim().split_once('=').ok_or_else(|| format!("missing bool value for {text}"))?;
    let wanted = match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
        "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
        _ => return Err(format!("invalid value of {name}={value}, err: not a bool")),
    };
    let mut rows = GATES.lines().map(|line| line.split(' '));
    let row = rows.find_map(|mut words| {
        (words.next() == Some(name)).then(|| (words.next() == Some("on"), words.next()))
    });
    let (on, locked) = row.ok_or_else(|| format!("unrecognized feature gate: {name}"))?;
    match (wanted == on, locked) {
        (true, _) => Ok(text.to_owned()),
        (false, Some(_)) => {
            Err(format!("cannot set feature gate {name} to {wanted}, feature is locked to {on}"))
        }
        (false, None) => Err(format!("feature gate {name} cannot be {wanted} here")),
    }
}

#[cfg(test)]
mod tests {
    use super::gate;

    #[test]
    fn defaults_are_accepted_and_all_else_is_refused_by_name() {
        for text in ["GangScheduling=false", "DynamicResourceAllocation=true", "AllAlpha=False"] {
            assert_eq!(gate(text), Ok(text.to_owned()));
        }
        let refused = |text: &str| gate(text).unwrap_err();
        assert_eq!(
            refused("GangScheduling=true"),
            "feature gate GangScheduling cannot be true here"
        );
        assert_eq!(
            refused("DynamicResourceAllocation=false"),
            "cannot set feature gate DynamicResourceAllocation to false, feature is locked to true"
        );
        assert_eq!(refused("Nope=true"), "unrecognized feature gate: Nope");
        assert_eq!(refused("GangScheduling"), "missing bool value for GangScheduling");
        assert!(refused("GangScheduling=perhaps").starts_with("invalid value of GangScheduling"));
    }
}
