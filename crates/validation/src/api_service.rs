//! Services of aggregated APIs.

use api::names;
use serde_json::Value;

use crate::check::At;
use crate::formats::port_number;
use crate::{Kind, PLAIN};

pub(crate) static KIND: Kind = Kind {
    name: names::path_segment,
    create: service,
    update: service,
    status: |service| {
        for condition in service.get("status").get("conditions").items() {
            condition.get("status").one_of(&["False", "True", "Unknown"]);
        }
    },
    ..PLAIN
};

const GROUP_PRIORITY_MAX: i64 = 20_000;
const VERSION_PRIORITY_MAX: i64 = 1000;

fn service(object: &At<'_>) {
    let (meta, spec) = (object.get("metadata"), object.get("spec"));
    let (name, group, version) = (meta.get("name"), spec.get("group"), spec.get("version"));
    let expected = format!("{}.{}", version.text(), group.text());
    if !name.is_empty() && names::path_segment(name.text()).is_empty() && name.text() != expected {
        name.invalid_text(&format!("must be `spec.version+\".\"+spec.group`: {expected:?}"));
    }
    if group.is_empty() {
        if version.text() != "v1" {
            group.required("only v1 may have an empty group and it better be legacy kube");
        }
    } else {
        group.named(names::dns_subdomain);
    }
    for fault in names::dns1035_label(version.text()) {
        version.invalid_text(&fault);
    }
    for (field, most) in
        [("groupPriorityMinimum", GROUP_PRIORITY_MAX), ("versionPriority", VERSION_PRIORITY_MAX)]
    {
        let at = spec.get(field);
        if !(1..=most).contains(&at.number()) {
            at.invalid_number(&format!("must be positive and less than {most}"));
        }
    }
    backend(&spec);
}

fn backend(spec: &At<'_>) {
    let (service, bundle) = (spec.get("service"), spec.get("caBundle"));
    let insecure = spec.get("insecureSkipTLSVerify");
    if service.is_absent() {
        if !bundle.is_empty() {
            let shown = format!("{} bytes", decoded_length(bundle.text()));
            bundle.invalid_as(&Value::from(shown), "local APIServices may not have a caBundle");
        }
        if insecure.is_true() {
            insecure.invalid("local APIServices may not have insecureSkipTLSVerify");
        }
        return;
    }
    service.get("namespace").need();
    service.get("name").need();
    let port = service.get("port");
    if let Some(fault) = port_number(port.number()) {
        port.invalid_number(&format!("port is not valid: {fault}"));
    }
    if insecure.is_true() && !bundle.is_empty() {
        insecure.invalid("may not be true if caBundle is present");
    }
}

/// Bytes behind base64.
fn decoded_length(text: &str) -> usize {
    text.trim_end_matches('=').len() * 3 / 4
}

#[cfg(test)]
mod tests {
    use api::registry::Registry;
    use serde_json::json;

    #[test]
    fn a_service_is_named_after_its_version_and_group() {
        let rows = Registry::built_in();
        let row = rows.find("apiregistration.k8s.io", "v1", "apiservices", "").expect("known");
        let object = json!({"metadata": {"name": "v1.b"}, "spec": {
            "group": "a", "version": "v1", "groupPriorityMinimum": 1, "versionPriority": 1001,
            "service": {"name": "s", "namespace": "n", "port": 443}}});
        let found = crate::validate_create(row, &object);
        let found: Vec<_> = found.iter().map(|c| (&*c.field, &*c.reason)).collect();
        assert_eq!(
            found,
            [("metadata.name", "FieldValueInvalid"), ("spec.versionPriority", "FieldValueInvalid")]
        );
    }
}
