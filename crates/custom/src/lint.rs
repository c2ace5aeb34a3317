//! Rules of a definition that do not compile: told when the definition is written, at the rule.

use kinds::At;

use crate::rules::compile;

/// Every rule of every version of a CustomResourceDefinition.
pub fn check_rules(definition: &At<'_>) {
    for version in definition.get("spec").get("versions").items() {
        schema(&version.get("schema").get("openAPIV3Schema"));
    }
}

fn schema(at: &At<'_>) {
    for rule in at.get("x-kubernetes-validations").items() {
        for key in ["rule", "messageExpression"] {
            let expression = rule.get(key);
            let text = expression.text().trim();
            if let Err(fault) = compile(text).map(drop).map_err(|f| f.to_string())
                && !text.is_empty()
            {
                expression.invalid(&fault);
            }
        }
    }
    for (_, property) in at.get("properties").entries() {
        schema(&property);
    }
    for key in ["items", "additionalProperties"] {
        if at.get(key).value().is_object() {
            schema(&at.get(key));
        }
    }
}

#[cfg(test)]
mod tests {
    use kinds::Check;
    use serde_json::json;

    #[test]
    fn a_rule_that_does_not_compile_is_told_at_its_place() {
        let definition = json!({"spec": {"versions": [{"schema": {"openAPIV3Schema": {
            "type": "object",
            "x-kubernetes-validations": [{"rule": "true"}],
            "properties": {"spec": {"x-kubernetes-validations": [{"rule": "self.size <"}]}},
        }}}]}});
        let check = Check::default();
        super::check_rules(&check.root(&definition, None));
        let causes = check.into_causes();
        assert_eq!(causes.len(), 1);
        let place = "spec.versions[0].schema.openAPIV3Schema.properties[spec].x-kubernetes-validations[0].rule";
        assert_eq!(causes[0].field, place);
        assert!(
            causes[0].message.starts_with("Invalid value: \"self.size <\": compilation failed: ")
        );
    }
}
