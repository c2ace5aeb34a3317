//! Feature gates: they are what they are in v1.36 by default. To say so is no error; to want otherwise is one that
//! names the gate. `/metrics` tells all of them (`kubernetes_feature_enabled`).

use telemetry::family;

/// A gate, its default and its stage in v1.36, and `locked` if upstream refuses to change it, a line.
const GATES: &str = include_str!("gates.txt");

/// The figures for `/metrics` (component-base `metrics/prometheus/feature`).
pub(crate) fn figures() -> String {
    let about = (
        "kubernetes_feature_enabled",
        "gauge",
        "This metric records the data about the stage and enablement of a k8s feature.",
    );
    let figure = |line: &'static str| {
        let mut words = line.split(' ');
        let (name, state, stage) = (words.next()?, words.next()?, words.next()?);
        // Upstream's stage of what is generally available is the empty text.
        let stage = if stage == "GA" { "" } else { stage };
        Some(([("name", name), ("stage", stage)], f64::from(state == "on")))
    };
    family(about, GATES.lines().filter_map(figure))
}

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
        (words.next() == Some(name)).then(|| (words.next() == Some("on"), words.nth(1)))
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
    use super::{figures, gate};

    #[test]
    fn every_gate_is_told_with_its_stage() {
        let told = figures();
        for line in [
            "kubernetes_feature_enabled{name=\"APIServerTracing\",stage=\"\"} 1\n",
            "kubernetes_feature_enabled{name=\"CBORServingAndStorage\",stage=\"ALPHA\"} 0\n",
            "kubernetes_feature_enabled{name=\"CustomCPUCFSQuotaPeriod\",stage=\"\"} 1\n",
            "kubernetes_feature_enabled{name=\"AllowDNSOnlyNodeCSR\",stage=\"DEPRECATED\"} 0\n",
        ] {
            assert!(told.contains(line), "{line} is not in\n{told}");
        }
        assert_eq!(told.lines().count(), super::GATES.lines().count() + 2);
    }

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
