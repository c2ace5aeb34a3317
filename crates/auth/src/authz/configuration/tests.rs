//! Upstream's `TestValidateAuthorizationConfiguration`, case by case.

use super::*;

const HEAD: &str = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\n";

fn parse(text: &str) -> Result<AuthorizationConfiguration, AuthorizationFault> {
    AuthorizationConfiguration::parse(&format!("{HEAD}{text}"), &[])
}

fn refused(text: &str) -> String {
    parse(text).expect_err("refused").to_string()
}

/// A file with one webhook, some of its lines replaced.
fn webhook(changes: &[(&str, &str)]) -> String {
    let mut lines = vec![
        ("timeout", "5s"),
        ("subjectAccessReviewVersion", "v1"),
        ("failurePolicy", "NoOpinion"),
        ("connectionInfo", "{type: KubeConfigFile, kubeConfigFile: /dev/../etc/passwd}"),
    ];
    for (key, value) in changes {
        lines.retain(|(known, _)| known != key);
        lines.push((key, value));
    }
    let lines: Vec<String> = lines
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(key, value)| format!("{key}: {value}"))
        .collect();
    format!("authorizers: [{{type: Webhook, name: w, webhook: {{{}}}}}]", lines.join(", "))
}

#[test]
fn authorizers_are_read_in_order() {
    let text = "authorizers: [{type: Node, name: node}, {type: RBAC, name: rbac}]";
    let read = parse(text).expect("read");
    let names: Vec<&str> = read.0.iter().map(AuthorizerType::name).collect();
    assert_eq!(names, ["Node", "RBAC"]);
    let conditions = "[{expression: \"request.user == 'jane'\"}]";
    let text = webhook(&[
        ("authorizedTTL", "1m"),
        ("cacheUnauthorizedRequests", "false"),
        ("failurePolicy", "Deny"),
        ("matchConditionSubjectAccessReviewVersion", "v1"),
        ("matchConditions", conditions),
    ]);
    let read = parse(&text).expect("read");
    let [AuthorizerType::Webhook { name, settings }] = &read.0[..] else { panic!("{read:?}") };
    assert_eq!(name, "w");
    assert_eq!(settings.authorized_life.as_secs(), 60);
    assert_eq!(settings.unauthorized_life.as_secs(), 0);
    assert!(settings.denies_on_error);
}

#[test]
fn what_is_no_chain_is_refused() {
    let none = "authorizers: Required value: at least one authorization mode must be defined";
    let cases = [
        ("authorizers: []", none),
        ("authorizers: [{name: x}]", "authorizers[0].type: Required value"),
        (
            "authorizers: [{type: Magic, name: x}]",
            "authorizers[0].type: Unsupported value: \"Magic\": supported values: \"ABAC\", \"AlwaysAllow\", \"AlwaysDeny\", \"Node\", \"RBAC\", \"Webhook\"",
        ),
        (
            "authorizers: [{type: Node, name: node}, {type: Node, name: other}]",
            "authorizers[1].type: Duplicate value: \"Node\"",
        ),
        ("authorizers: [{type: Node}]", "authorizers[0].name: Required value"),
        (
            "authorizers: [{type: Node, name: N_}]",
            "authorizers[0].name: Invalid value: \"N_\": authorizer name is invalid: a lowercase RFC 1123",
        ),
        (
            "authorizers: [{type: Node, name: other}]",
            "expected name node for authorizer Node instead of other",
        ),
        (
            "authorizers: [{type: Webhook, name: w}]",
            "authorizers[0].webhook: Required value: required when type=Webhook",
        ),
        (
            "authorizers: [{type: Node, name: node, webhook: {timeout: 1s}}]",
            "authorizers[0].webhook: Invalid value: \"non-null\": may only be specified when type=Webhook",
        ),
        ("authorizer: []", "unknown field `authorizer`"),
    ];
    for (text, why) in cases {
        assert!(refused(text).contains(why), "{text}: {}", refused(text));
    }
    let twice = "authorizers: [{type: RBAC, name: rbac}, {type: Webhook, name: rbac}]";
    assert!(refused(twice).contains("authorizers[1].name: Duplicate value: \"rbac\""));
    let needs = AuthorizationConfiguration::parse(
        &format!("{HEAD}authorizers: [{{type: RBAC, name: rbac}}]"),
        &["Node", "RBAC"],
    );
    assert_eq!(needs.expect_err("refused").to_string(), "missing required types: [Node]");
}

#[test]
fn webhooks_are_checked_field_by_field() {
    let at = |field: &str, why: &str| format!("authorizers[0].{field}: {why}");
    let conditions = |text: &'static str| {
        vec![("matchConditionSubjectAccessReviewVersion", "v1"), ("matchConditions", text)]
    };
    let cases = [
        (vec![("timeout", "")], at("timeout", "Required value")),
        (
            vec![("timeout", "31s")],
            at("timeout", "Invalid value: \"31s\": must be > 0s and <= 30s"),
        ),
        (
            vec![("timeout", "-1s")],
            at("timeout", "Invalid value: \"-1s\": must be > 0s and <= 30s"),
        ),
        (
            vec![("timeout", "soon")],
            at("timeout", "Invalid value: \"soon\": time: invalid duration"),
        ),
        (
            vec![("authorizedTTL", "-1s")],
            at("authorizedTTL", "Invalid value: \"-1s\": must be > 0s"),
        ),
        (
            vec![("unauthorizedTTL", "-1s")],
            at("unauthorizedTTL", "Invalid value: \"-1s\": must be > 0s"),
        ),
        (
            vec![("subjectAccessReviewVersion", "")],
            at("subjectAccessReviewVersion", "Required value"),
        ),
        (
            vec![("subjectAccessReviewVersion", "v2")],
            at(
                "subjectAccessReviewVersion",
                "Unsupported value: \"v2\": supported values: \"v1\", \"v1beta1\"",
            ),
        ),
        (
            vec![("matchConditionSubjectAccessReviewVersion", "v1beta1")],
            at("matchConditionSubjectAccessReviewVersion", "Unsupported value: \"v1beta1\""),
        ),
        (
            vec![("matchConditions", "[{expression: 'true'}]")],
            at(
                "matchConditionSubjectAccessReviewVersion",
                "Required value: required if match conditions are specified",
            ),
        ),
        (vec![("failurePolicy", "")], at("failurePolicy", "Required value")),
        (
            vec![("failurePolicy", "Allow")],
            at(
                "failurePolicy",
                "Unsupported value: \"Allow\": supported values: \"NoOpinion\", \"Deny\"",
            ),
        ),
        (vec![("connectionInfo", "{}")], at("connectionInfo.type", "Required value")),
        (
            vec![("connectionInfo", "{type: Other}")],
            at("connectionInfo.type", "Unsupported value: \"Other\""),
        ),
        (
            vec![("connectionInfo", "{type: InClusterConfig}")],
            at("connectionInfo.type", "Invalid value: \"InClusterConfig\""),
        ),
        (
            vec![("connectionInfo", "{type: KubeConfigFile}")],
            at("connectionInfo.kubeConfigFile", "Required value"),
        ),
        (
            vec![("connectionInfo", "{type: KubeConfigFile, kubeConfigFile: a/b}")],
            at("connectionInfo.kubeConfigFile", "Invalid value: \"a/b\": must be an absolute path"),
        ),
        (
            vec![("connectionInfo", "{type: KubeConfigFile, kubeConfigFile: /none/there}")],
            at(
                "connectionInfo.kubeConfigFile",
                "Invalid value: \"/none/there\": error loading file: stat /none/there: no such file or directory",
            ),
        ),
        (
            vec![("connectionInfo", "{type: KubeConfigFile, kubeConfigFile: /etc}")],
            at("connectionInfo.kubeConfigFile", "Invalid value: \"/etc\": must be a regular file"),
        ),
        (conditions("[{expression: ' '}]"), at("matchConditions[0].expression", "Required value")),
        (
            conditions("[{expression: 'true'}, {expression: 'true'}]"),
            at("matchConditions[1].expression", "Duplicate value: \"true\""),
        ),
        (
            conditions("[{expression: request.user}]"),
            at(
                "matchConditions[0].expression",
                "Invalid value: \"request.user\": must evaluate to bool but got string",
            ),
        ),
        (
            conditions("[{expression: 'request.name == 1'}]"),
            at(
                "matchConditions[0].expression",
                "Invalid value: \"request.name == 1\": compilation failed: ",
            ),
        ),
    ];
    for (changes, why) in cases {
        let told = refused(&webhook(&changes));
        assert!(told.contains(&why), "{changes:?}: {told}");
    }
    let many = vec!["{expression: 'true'}"; 65].join(",");
    let many = format!("[{many}]");
    let told = refused(&webhook(&[("matchConditions", &many)]));
    assert!(told.contains("matchConditions: Too many: 65: must have at most 64 items"), "{told}");
}

#[test]
fn conditions_see_the_whole_question() {
    let hold = |texts: &[&str], spec: serde_json::Value| {
        let mut conditions = Conditions::default();
        for text in texts {
            conditions.add(text).expect("compiles");
        }
        conditions.hold(&spec)
    };
    let list = serde_json::json!({
        "user": "jane", "groups": ["dev"],
        "resourceAttributes": {"verb": "list", "resource": "pods", "labelSelector":
            {"requirements": [{"key": "a", "operator": "In", "values": ["b"]}]}},
    });
    let cases = [
        ("request.user == 'jane' && 'dev' in request.groups", true),
        ("has(request.resourceAttributes) && request.resourceAttributes.namespace == ''", true),
        ("has(request.nonResourceAttributes)", false),
        ("request.resourceAttributes.labelSelector.requirements[0].values == ['b']", true),
        ("!has(request.resourceAttributes.fieldSelector)", true),
        ("request.uid == '' && request.extra == {}", true),
    ];
    for (text, wanted) in cases {
        assert_eq!(hold(&[text], list.clone()), Ok(wanted), "{text}");
    }
    let fails = "request.nonResourceAttributes.path == '/x'";
    assert!(hold(&[fails], list.clone()).expect_err("fails").contains("resulted in error"));
    assert_eq!(hold(&[fails, "false"], list), Ok(false), "one that does not hold decides");
}
