//! The pod's account: mirror pods have none, and one that says so limits the Secrets of its pods.
//!
//! Rule: `plugin/pkg/admission/serviceaccount`, `Validate`. Pure.

use auth::references;
use serde_json::Value;
use validation::items;

const LIMITS: &str = "kubernetes.io/enforce-mountable-secrets";

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or("")
}

/// What the pod of a node's own file may not name, whoever writes it into the API.
pub(super) fn check_mirror(pod: &Value) -> Result<(), String> {
    if !text(&pod["spec"], "serviceAccountName").is_empty() {
        return Err("a mirror pod may not reference service accounts".into());
    }
    if references::secrets(pod).next().is_some() {
        return Err("a mirror pod may not reference secrets".into());
    }
    let mut sources =
        items(&pod["spec"], "volumes").flat_map(|v| items(&v["projected"], "sources"));
    if sources.any(|source| source["serviceAccountToken"].is_object()) {
        return Err("a mirror pod may not use ServiceAccountToken volume projections".into());
    }
    Ok(())
}

/// Whether the account's pods may use no Secrets but those that it names.
pub(super) fn limits(account: &Value) -> bool {
    let value = text(&account["metadata"]["annotations"], LIMITS);
    ["1", "t", "T", "true", "TRUE", "True"].contains(&value)
}

/// A new pod uses only the Secrets of its account.
pub(super) fn check_secrets(account: &Value, pod: &Value) -> Result<(), String> {
    let (spec, name) = (&pod["spec"], text(&account["metadata"], "name"));
    let denied = |what: String| {
        Err(format!(
            "{what} is not allowed because service account {name} does not reference that secret"
        ))
    };
    let mounted = items(spec, "volumes").map(|volume| text(&volume["secret"], "secretName"));
    for secret in mounted.filter(|secret| !secret.is_empty()) {
        if !has(account, "secrets", secret) {
            return denied(format!("volume with secret.secretName=\"{secret}\""));
        }
    }
    check_containers(account, spec, ("initContainers", "init container"))?;
    check_containers(account, spec, ("containers", "container"))?;
    for (at, pull) in items(spec, "imagePullSecrets").enumerate() {
        let secret = text(pull, "name");
        if !has(account, "imagePullSecrets", secret) {
            return Err(format!(
                "imagePullSecrets[{at}].name=\"{secret}\" is not allowed because service account {name} does not reference that imagePullSecret"
            ));
        }
    }
    Ok(())
}

/// So do containers that are added to a pod later.
pub(super) fn check_ephemeral(account: &Value, pod: &Value) -> Result<(), String> {
    check_containers(account, &pod["spec"], ("ephemeralContainers", "ephemeral container"))
}

fn has(account: &Value, list: &str, secret: &str) -> bool {
    items(account, list).any(|own| own["name"] == secret)
}

fn check_containers(
    account: &Value,
    spec: &Value,
    (kind, called): (&str, &str),
) -> Result<(), String> {
    let name = text(&account["metadata"], "name");
    for container in items(spec, kind) {
        let one = items(container, "env").map(|env| {
            (format!("envVar {}", text(env, "name")), &env["valueFrom"]["secretKeyRef"])
        });
        let whole = items(container, "envFrom").map(|from| ("envFrom".into(), &from["secretRef"]));
        for (place, reference) in one.chain(whole).filter(|(_, r)| r.is_object()) {
            let secret = text(reference, "name");
            if !has(account, "secrets", secret) {
                return Err(format!(
                    "{called} {} with {place} referencing secret.secretName=\"{secret}\" is not allowed because service account {name} does not reference that secret",
                    text(container, "name")
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_mirror_pod_has_no_account_and_no_secrets() {
        let check = |spec: Value| check_mirror(&json!({"spec": spec}));
        assert_eq!(check(json!({})), Ok(()));
        for (spec, why) in [
            (json!({"serviceAccountName": "a"}), "a mirror pod may not reference service accounts"),
            (
                json!({"imagePullSecrets": [{"name": "s"}]}),
                "a mirror pod may not reference secrets",
            ),
            (
                json!({"volumes": [{"projected": {"sources": [{"serviceAccountToken": {}}]}}]}),
                "a mirror pod may not use ServiceAccountToken volume projections",
            ),
        ] {
            assert_eq!(check(spec), Err(why.into()));
        }
    }

    #[test]
    fn an_account_may_limit_the_secrets_of_its_pods() {
        let account = json!({"metadata": {"name": "a", "annotations": {LIMITS: "true"}},
            "secrets": [{"name": "own"}], "imagePullSecrets": [{"name": "pull"}]});
        assert!(limits(&account) && !limits(&json!({})));
        let check = |spec: Value| check_secrets(&account, &json!({"spec": spec}));
        let good = json!({"volumes": [{"secret": {"secretName": "own"}}, {"emptyDir": {}}],
            "imagePullSecrets": [{"name": "pull"}],
            "containers": [{"envFrom": [{"secretRef": {"name": "own"}}]}]});
        assert_eq!(check(good), Ok(()));
        let end = "is not allowed because service account a does not reference that secret";
        let env = json!([{"name": "E", "valueFrom": {"secretKeyRef": {"name": "x"}}}]);
        for (spec, what) in [
            (
                json!({"volumes": [{"secret": {"secretName": "x"}}]}),
                "volume with secret.secretName=\"x\"",
            ),
            (
                json!({"initContainers": [{"name": "i", "env": env}]}),
                "init container i with envVar E referencing secret.secretName=\"x\"",
            ),
            (
                json!({"containers": [{"name": "c", "envFrom": [{"secretRef": {"name": "x"}}]}]}),
                "container c with envFrom referencing secret.secretName=\"x\"",
            ),
        ] {
            assert_eq!(check(spec), Err(format!("{what} {end}")));
        }
        let added = json!({"spec": {"ephemeralContainers": [{"name": "e", "env": env}]}});
        let what = "ephemeral container e with envVar E referencing secret.secretName=\"x\"";
        assert_eq!(check_ephemeral(&account, &added), Err(format!("{what} {end}")));
    }
}
