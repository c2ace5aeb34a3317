//! Field selectors of events: one index, two groups that name its fields.

use api::registry::Resource;
use api::selector::FieldSelector;

/// Selectors of `events.k8s.io` name fields as that group does; the fault of one that does not.
pub(crate) fn rename_fields(row: &Resource, fields: &mut FieldSelector) -> Result<(), String> {
    if row.group != "events.k8s.io" {
        return Ok(());
    }
    for requirement in &mut fields.requirements {
        let field = requirement.field.as_str();
        let renamed = match field {
            "reportingController" => "reportingComponent".to_owned(),
            "reason" | "type" | "metadata.name" | "metadata.namespace" => continue,
            _ => match field.strip_prefix("regarding.") {
                Some(rest) => format!("involvedObject.{rest}"),
                None => return Err(format!("field label not supported: {field}")),
            },
        };
        requirement.field = renamed;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::registry::Registry;

    #[test]
    fn each_group_has_its_names() {
        let row = |group| Registry::built_in().find(group, "v1", "events", "").expect("known");
        let mut fields = FieldSelector::parse("regarding.name=p,type=Normal").expect("parses");
        rename_fields(row("events.k8s.io"), &mut fields).expect("known names");
        let names: Vec<&str> = fields.requirements.iter().map(|r| r.field.as_str()).collect();
        assert_eq!(names, ["involvedObject.name", "type"]);
        let mut source = FieldSelector::parse("source=x").expect("parses");
        assert_eq!(rename_fields(row(""), &mut source), Ok(()));
        let refused = rename_fields(row("events.k8s.io"), &mut source);
        assert_eq!(refused, Err("field label not supported: source".to_owned()));
    }
}
