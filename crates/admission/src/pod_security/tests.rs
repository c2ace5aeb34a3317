use serde_json::json;

use super::*;

fn said(labels: &Value, spec: &Value) -> String {
    let (policy, bad) = policy(labels, "enforce");
    assert!(bad.is_empty());
    told(&violations(policy, &json!({}), spec))
}

fn level(level: &str) -> Value {
    json!({"pod-security.kubernetes.io/enforce": level})
}

#[test]
fn a_plain_pod_is_baseline_but_not_restricted() {
    let spec = json!({"containers": [{"name": "c"}]});
    assert_eq!(said(&json!({}), &spec), "");
    assert_eq!(said(&level("baseline"), &spec), "");
    assert_eq!(
        said(&level("restricted"), &spec),
        "allowPrivilegeEscalation != false (container \"c\" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container \"c\" must set securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or container \"c\" must set securityContext.runAsNonRoot=true), seccompProfile (pod or container \"c\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")"
    );
}

#[test]
fn a_careful_pod_is_restricted() {
    let spec = json!({
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "volumes": [{"name": "v", "emptyDir": {}}],
        "containers": [{"name": "c", "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}}}],
    });
    assert_eq!(said(&level("restricted"), &spec), "");
}

#[test]
fn what_reaches_the_host_is_told() {
    let spec = json!({
        "hostNetwork": true, "hostPID": true,
        "volumes": [{"name": "v", "hostPath": {"path": "/"}}],
        "containers": [
            {"name": "a", "securityContext": {"privileged": true}, "ports": [{"hostPort": 80}]},
            {"name": "b", "securityContext": {"capabilities": {"add": ["SYS_ADMIN", "CHOWN"]}}, "ports": [{"hostPort": 81}]},
        ],
    });
    assert_eq!(
        said(&level("baseline"), &spec),
        "non-default capabilities (container \"b\" must not include \"SYS_ADMIN\" in securityContext.capabilities.add), host namespaces (hostNetwork=true, hostPID=true), hostPath volumes (volume \"v\"), hostPort (containers \"a\", \"b\" use hostPorts 80, 81), privileged (container \"a\" must not set securityContext.privileged=true)"
    );
}

#[test]
fn versions_and_bad_labels_are_read() {
    let mut labels = level("restricted");
    labels["pod-security.kubernetes.io/enforce-version"] = "v1.20".into();
    let (old, _) = policy(&labels, "enforce");
    assert_eq!(old.to_string(), "restricted:v1.20");
    // Dropping all capabilities is asked for since 1.22.
    let spec = json!({"containers": [{"name": "c"}]});
    assert!(!told(&violations(old, &json!({}), &spec)).contains("capabilities"));
    let (_, bad) = policy(&level("strict"), "enforce");
    assert_eq!(bad[0].value, "strict");
}
