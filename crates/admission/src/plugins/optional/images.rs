//! AlwaysPullImages: every new image is pulled, so that only pods with the right to it run it.
//!
//! Rule: `plugin/pkg/admission/alwayspullimages`.

use std::collections::HashSet;

use serde_json::Value;
use validation::{items, items_mut};

use crate::attributes::{Attributes, Operation};
use crate::plugin::{Decision, Plugin, Verdict};

const LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

pub(crate) struct AlwaysPullImages;

impl Plugin for AlwaysPullImages {
    fn name(&self) -> &'static str {
        "AlwaysPullImages"
    }

    fn handles(&self, request: &Attributes<'_>) -> bool {
        let writes = matches!(request.operation, Operation::Create | Operation::Update);
        writes && request.path() == ("", "pods", "")
    }

    fn mutate<'a>(&'a self, request: &'a Attributes<'a>, pod: &'a mut Value) -> Decision<'a> {
        if !has_only_old_images(request, pod) {
            always_pull(pod);
        }
        Decision::ALLOWED
    }

    fn validate<'a>(&'a self, request: &'a Attributes<'a>, pod: &'a Value) -> Decision<'a> {
        check(request, pod).into()
    }
}

/// An update without new images is left alone: pods from before the plugin go on.
fn has_only_old_images(request: &Attributes<'_>, pod: &Value) -> bool {
    let images = |pod: &Value| -> HashSet<String> {
        let containers = LISTS.into_iter().flat_map(|list| items(&pod["spec"], list));
        containers.map(|c| c["image"].as_str().unwrap_or("").to_owned()).collect()
    };
    request.old.is_some_and(|old| images(pod).is_subset(&images(old)))
}

fn always_pull(pod: &mut Value) {
    for list in LISTS {
        for container in items_mut(&mut pod["spec"], list) {
            container["imagePullPolicy"] = "Always".into();
        }
    }
    for volume in items_mut(&mut pod["spec"], "volumes").filter(|v| v["image"].is_object()) {
        volume["image"]["pullPolicy"] = "Always".into();
    }
}

fn check(request: &Attributes<'_>, pod: &Value) -> Verdict {
    if has_only_old_images(request, pod) {
        return Ok(());
    }
    let containers = LISTS.into_iter().flat_map(|list| {
        let all = items(&pod["spec"], list).enumerate();
        all.map(move |(at, c)| {
            (format!("spec.{list}[{at}].imagePullPolicy"), &c["imagePullPolicy"])
        })
    });
    let volumes =
        items(&pod["spec"], "volumes").enumerate().filter(|(_, v)| v["image"].is_object());
    let volumes = volumes.map(|(at, volume)| {
        (format!("spec.volumes[{at}].image.pullPolicy"), &volume["image"]["pullPolicy"])
    });
    let other = containers.chain(volumes).find(|(_, policy)| **policy != "Always");
    let Some((field, policy)) = other else { return Ok(()) };
    let policy = policy.as_str().unwrap_or("");
    let why = format!("{field}: Unsupported value: {policy:?}: supported values: \"Always\"");
    Err(request.forbid(pod, &why))
}
