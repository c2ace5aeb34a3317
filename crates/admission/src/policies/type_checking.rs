//! Type checking: the expressions of a ValidatingAdmissionPolicy against the types of the resources that its
//! rules name (apiserver `policy/validating/typechecking.go`). Its findings are warnings in the policy's status;
//! they change nothing of what the policy does.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::Value;

use super::policy::variables;
use super::schema_types::SchemaTypes;
use crate::expressions::{Compiler, Given};

/// Kinds that are checked for one policy.
const KINDS_MAX: usize = 10;

/// A kind by its whole name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupVersionKind {
    pub group: String,
    pub version: String,
    pub kind: String,
}

impl fmt::Display for GroupVersionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}, Kind={}", self.group, self.version, self.kind)
    }
}

/// An entry of `status.typeChecking.expressionWarnings`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    pub field_ref: String,
    pub warning: String,
}

/// A resource that a rule names: group, version, plural.
pub type NamedResource = (String, String, String);

/// The resources that the rules of a policy name, rule by rule. Rules with wildcards in groups or versions name
/// none; subresources are left out.
pub fn named_resources(policy: &Value) -> Vec<Vec<NamedResource>> {
    let rules = validation::items(&policy["spec"]["matchConstraints"], "resourceRules");
    rules.map(named_by_rule).collect()
}

fn named_by_rule(rule: &Value) -> Vec<NamedResource> {
    let sorted = |key: &str| {
        let texts = validation::items(rule, key).filter_map(Value::as_str);
        texts.map(str::to_owned).collect::<BTreeSet<String>>()
    };
    let (groups, versions) = (sorted("apiGroups"), sorted("apiVersions"));
    if groups.iter().chain(&versions).any(|text| text.contains('*')) {
        return Vec::new();
    }
    let mut named = Vec::new();
    for group in &groups {
        for version in &versions {
            let resources = sorted("resources").into_iter();
            let plain = resources.filter(|resource| !resource.contains(['*', '/']));
            named.extend(plain.map(|resource| (group.clone(), version.clone(), resource)));
        }
    }
    named
}

/// The kinds to check, of the kinds found for each rule's resources: sorted, and not too many.
pub fn kinds_to_check(found: &[Vec<GroupVersionKind>]) -> Vec<GroupVersionKind> {
    let mut kinds = BTreeSet::new();
    for of_rule in found {
        kinds.extend(of_rule.iter().take(KINDS_MAX).cloned());
        if of_rule.len() >= KINDS_MAX {
            break;
        }
    }
    kinds.into_iter().collect()
}

/// The kind of the policy's parameters.
pub fn param_kind(policy: &Value) -> Option<GroupVersionKind> {
    let kind = policy["spec"]["paramKind"].as_object()?;
    let text = |key: &str| kind.get(key).and_then(Value::as_str).unwrap_or("");
    let version = text("apiVersion");
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    Some(GroupVersionKind {
        group: group.into(),
        version: version.into(),
        kind: text("kind").into(),
    })
}

/// Checks the policy for each of the kinds, of which `document` gives the OpenAPI v3 document of the group and
/// version. Kinds without a schema are left out.
pub fn check_types<'d>(
    policy: &Value,
    kinds: &[GroupVersionKind],
    document: impl Fn(&GroupVersionKind) -> Option<&'d Value>,
) -> Vec<Warning> {
    let types = |kind: &GroupVersionKind| {
        SchemaTypes::of(document(kind)?, (&kind.group, &kind.version, &kind.kind))
    };
    let spec = &policy["spec"];
    let params = param_kind(policy).map(|kind| types(&kind));
    let compilers: Vec<(&GroupVersionKind, Compiler)> = kinds
        .iter()
        .filter_map(|kind| {
            let object = types(kind)?;
            let params = params.as_ref().map(|types| types.as_ref().map(SchemaTypes::parts));
            let mut compiler = Compiler::typed(object.parts(), params);
            variables(spec, &mut compiler);
            Some((kind, compiler))
        })
        .collect();
    let mut warnings = Vec::new();
    for (at, validation) in validation::items(spec, "validations").enumerate() {
        for field in ["expression", "messageExpression"] {
            let text = validation[field].as_str().unwrap_or("");
            let found: Vec<String> = compilers
                .iter()
                .filter(|_| !text.is_empty())
                .filter_map(|(kind, compiler)| {
                    let issues = compiler.issues(text, Given::AUTHORIZER)?;
                    Some(format!("{kind}: {issues}\n"))
                })
                .collect();
            if !found.is_empty() {
                let field_ref = format!("spec.validations[{at}].{field}");
                warnings.push(Warning { field_ref, warning: found.join("\n") });
            }
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn document() -> Value {
        let component = |properties: Value| json!({"type": "object", "properties": properties});
        let mut root = component(json!({
            "spec": {"allOf": [{"$ref": "#/components/schemas/Spec"}], "default": {}},
            "metadata": {"$ref": "#/components/schemas/Meta"},
        }));
        root["x-kubernetes-group-version-kind"] =
            json!([{"group": "apps", "version": "v1", "kind": "Deployment"}]);
        json!({"components": {"schemas": {
            "Deployment": root,
            "Meta": component(json!({"name": {"type": "string"},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}}})),
            "Spec": component(json!({"replicas": {"type": "integer"}, "size": {"$ref": "#/components/schemas/x.Quantity"},
                "maxSurge": {"format": "int-or-string", "oneOf": []}, "namespace": {"type": "string"},
                "again": {"type": "array", "items": {"$ref": "#/components/schemas/Spec"}}})),
            "x.Quantity": {"oneOf": []},
        }}})
    }

    fn kind() -> GroupVersionKind {
        GroupVersionKind { group: "apps".into(), version: "v1".into(), kind: "Deployment".into() }
    }

    fn warnings(spec: Value) -> Vec<Warning> {
        let document = document();
        check_types(&json!({"spec": spec}), &[kind()], |_| Some(&document))
    }

    #[test]
    fn wrong_types_and_fields_are_warned_about() {
        let found = warnings(json!({"validations": [
            {"expression": "object.spec.replicas > 1 && object.spec.again[0].again[0].replicas < 3"},
            {"expression": "object.foo < params.bar"},
            {"expression": "object.spec.replicas > '1'", "messageExpression": "object.spec.nothing"},
            {"expression": "object.spec.maxSurge == 1 || object.spec.size == 'x' || object.metadata.labels['a'] == ''"},
            {"expression": "object.kind == object.spec.__namespace__ && authorizer.requestResource.check('x').allowed()"},
        ]}));
        let of = |at: usize| (found[at].field_ref.as_str(), found[at].warning.as_str());
        assert_eq!(found.len(), 3, "{found:#?}");
        let (field, text) = of(0);
        assert_eq!(field, "spec.validations[1].expression");
        assert!(
            text.starts_with("apps/v1, Kind=Deployment: ERROR: <input>:1:7: undefined field 'foo'")
        );
        assert!(
            text.contains("undeclared reference to 'params'") && text.ends_with("^\n"),
            "{text}"
        );
        let (field, text) = of(1);
        assert_eq!(field, "spec.validations[2].expression");
        assert!(text.contains("found no matching overload for '_>_' applied to '(int, string)'"));
        assert_eq!(of(2).0, "spec.validations[2].messageExpression");
    }

    #[test]
    fn variables_have_the_types_of_their_expressions() {
        let found = warnings(json!({
            "variables": [{"name": "n", "expression": "object.spec.replicas"}],
            "validations": [{"expression": "variables.n > 'a'"}, {"expression": "variables.n > 1"}],
        }));
        assert_eq!(found.len(), 1);
        assert!(found[0].warning.contains("applied to '(int, string)'"), "{found:?}");
    }

    #[test]
    fn parameters_are_typed_where_their_schema_is_known() {
        let spec = |version: &str| {
            json!({
                "paramKind": {"apiVersion": version, "kind": "Deployment"},
                "validations": [{"expression": "params.spec.nothing == 1"}],
            })
        };
        assert_eq!(warnings(spec("apps/v1")).len(), 1);
        assert_eq!(warnings(spec("unknown/v1")).len(), 0);
    }

    #[test]
    fn rules_name_resources_without_wildcards() {
        let rule = |groups: &[&str], versions: &[&str], resources: &[&str]| json!({"apiGroups": groups, "apiVersions": versions, "resources": resources});
        let policy = json!({"spec": {"matchConstraints": {"resourceRules": [
            rule(&["apps", ""], &["v1"], &["pods", "pods/exec", "*"]),
            rule(&["*"], &["v1"], &["pods"]),
            rule(&["apps"], &["*"], &["pods"]),
        ]}}});
        let named = |group: &str| (group.to_owned(), "v1".to_owned(), "pods".to_owned());
        assert_eq!(named_resources(&policy), [vec![named(""), named("apps")], vec![], vec![]]);
        let many = |count: usize| {
            (0..count).map(|at| GroupVersionKind { kind: at.to_string(), ..kind() }).collect()
        };
        assert_eq!(kinds_to_check(&[many(12), vec![kind()]]).len(), 10);
        assert_eq!(kinds_to_check(&[many(3), vec![kind()]]).len(), 4);
    }
}
