//! PodNodeSelector: pods of a namespace go to the nodes that its annotation, or the configuration, names.
//!
//! Rule: `plugin/pkg/admission/podnodeselector`.

use std::collections::BTreeMap;

use api::Status;
use serde_json::{Value, json};

use crate::attributes::{Attributes, Operation};
use crate::plugin::{Decision, Plugin, Verdict};

const ANNOTATION: &str = "scheduler.alpha.kubernetes.io/node-selector";
const DEFAULT: &str = "clusterDefaultNodeSelector";

type Labels = BTreeMap<String, String>;

pub(crate) struct PodNodeSelector {
    /// Selectors by namespace, and that of namespaces without one.
    selectors: Labels,
}

impl PodNodeSelector {
    /// Of the plugin's configuration.
    pub(crate) fn read(configuration: &Value) -> PodNodeSelector {
        let entries = configuration["podNodeSelectorPluginConfig"].as_object();
        let text = |(name, value): (&String, &Value)| Some((name.clone(), value.as_str()?.into()));
        PodNodeSelector { selectors: entries.into_iter().flatten().filter_map(text).collect() }
    }

    fn of_namespace(&self, request: &Attributes<'_>) -> Result<Labels, Status> {
        let name = request.namespace();
        let namespace = request.cluster.get(("", "v1", "namespaces"), name);
        let namespace = namespace
            .ok_or_else(|| Status::internal(format!("namespace {name} does not exist")))?;
        let tree = namespace.to_value();
        let own = tree["metadata"]["annotations"][ANNOTATION].as_str();
        labels(own.or_else(|| self.selectors.get(DEFAULT).map(String::as_str)).unwrap_or(""))
    }

    fn check(&self, request: &Attributes<'_>, pod: &Value) -> Verdict {
        let wanted = labels_of(pod);
        if conflicts(&self.of_namespace(request)?, &wanted) {
            return forbid(
                pod,
                "pod node label selector conflicts with its namespace node label selector",
            );
        }
        let allowed = self.selectors.get(request.namespace()).map_or("", String::as_str);
        let allowed = labels(allowed)?;
        let is_allowed = |(key, value): (&String, &String)| allowed.get(key) == Some(value);
        match allowed.is_empty() || wanted.iter().all(is_allowed) {
            true => Ok(()),
            false => {
                forbid(pod, "pod node label selector labels conflict with its namespace whitelist")
            }
        }
    }

    fn merge(&self, request: &Attributes<'_>, pod: &mut Value) -> Verdict {
        let (mut own, wanted) = (self.of_namespace(request)?, labels_of(pod));
        if conflicts(&own, &wanted) {
            return forbid(
                pod,
                "pod node label selector conflicts with its namespace node label selector",
            );
        }
        own.extend(wanted);
        if !own.is_empty() {
            pod["spec"]["nodeSelector"] = json!(own);
        }
        self.check(request, pod)
    }
}

impl Plugin for PodNodeSelector {
    fn name(&self) -> &'static str {
        "PodNodeSelector"
    }

    fn handles(&self, request: &Attributes<'_>) -> bool {
        request.operation == Operation::Create && request.path() == ("", "pods", "")
    }

    fn mutate<'a>(&'a self, request: &'a Attributes<'a>, pod: &'a mut Value) -> Decision<'a> {
        self.merge(request, pod).into()
    }

    fn validate<'a>(&'a self, request: &'a Attributes<'a>, pod: &'a Value) -> Decision<'a> {
        self.check(request, pod).into()
    }
}

fn forbid(pod: &Value, why: &str) -> Verdict {
    Err(Status::forbidden("", "pods", api::tree::metadata_text(pod, "name"), why))
}

fn conflicts(a: &Labels, b: &Labels) -> bool {
    a.iter().any(|(key, value)| b.get(key).is_some_and(|other| other != value))
}

fn labels_of(pod: &Value) -> Labels {
    let map = pod["spec"]["nodeSelector"].as_object();
    let text = |(key, value): (&String, &Value)| (key.clone(), value.as_str().unwrap_or("").into());
    map.into_iter().flatten().map(text).collect()
}

/// `a=b,c=d` as labels; a selector that is not of this form is a fault of the cluster.
fn labels(selector: &str) -> Result<Labels, Status> {
    let mut labels = Labels::new();
    for label in selector.split(',').filter(|_| !selector.is_empty()) {
        let parts: Vec<&str> = label.split('=').collect();
        let [key, value] = parts[..] else {
            let why = format!("invalid selector: [{}]", parts.join(" "));
            return Err(Status::failure(500, "", why));
        };
        labels.insert(key.trim().to_owned(), value.trim().to_owned());
    }
    Ok(labels)
}
