//! Binding a pod to a node, and evicting it within its disruption budget.

use api::Status;
use api::selector::LabelSelector;
use bytes::Bytes;
use serde_json::{Value, json};

use crate::call::Call;
use crate::verbs::update::{Operation, change};
use crate::verbs::{Answer, delete};
use kinds::set_default;

fn created() -> Answer {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    Answer::Tree { code: 201, value: status }
}

/// Sets `spec.nodeName` once (registry `BindingREST`).
pub(super) async fn bind(call: &Call<'_>, binding: Value) -> Result<Answer, Status> {
    let name = match call.info.name.as_str() {
        "" => binding["metadata"]["name"].as_str().unwrap_or("").to_owned(),
        name => name.to_owned(),
    };
    let target = binding["target"]["name"].as_str().unwrap_or("").to_owned();
    if target.is_empty() {
        let cause = crate::meta::required("target.name", "");
        return Err(Status::invalid("", "Binding", &name, vec![cause]));
    }
    let conflict = |why: String| Status::conflict("", "pods/binding", &name, &why);
    let info = crate::request::RequestInfo { name: name.clone(), ..call.info.clone() };
    let bound = Call::new(
        call.server,
        call.user,
        (&info, call.query),
        (call.main_pod_row(), None),
        &call.manager,
    )?;
    change(&bound, Operation::Internal, |pod| {
        if pod["metadata"]["deletionTimestamp"].is_string() {
            return Err(conflict(format!(
                "pod {name} is being deleted, cannot be assigned to a host"
            )));
        }
        let now = pod["spec"]["nodeName"].as_str().unwrap_or("");
        if !now.is_empty() {
            return Err(conflict(format!("pod {name} is already assigned to node {now:?}")));
        }
        let mut pod = pod.clone();
        pod["spec"]["nodeName"] = target.as_str().into();
        let annotations =
            binding["metadata"]["annotations"].as_object().cloned().unwrap_or_default();
        for (key, value) in annotations {
            set_default(&mut pod["metadata"], "annotations", json!({}));
            pod["metadata"]["annotations"][key] = value;
        }
        set_scheduled(&mut pod, &call.now_text());
        crate::meta::of(&mut pod).remove("resourceVersion");
        Ok(pod)
    })
    .await?;
    Ok(created())
}

fn set_scheduled(pod: &mut Value, now: &str) {
    set_default(&mut pod["status"], "conditions", json!([]));
    let condition = json!({
        "type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now,
    });
    if let Some(conditions) = pod["status"]["conditions"].as_array_mut() {
        conditions.retain(|c| c["type"] != "PodScheduled");
        conditions.push(condition);
    }
}

/// Deletes the pod if every budget that covers it allows one disruption more.
pub(super) async fn evict(call: &Call<'_>, eviction: Value) -> Result<Answer, Status> {
    let key = call.key();
    let pods = call.server.collection(call.main_row());
    let pod = pods.get(&key).ok_or_else(|| call.not_found())?;
    let finished = matches!(
        pod.to_value()["status"]["phase"].as_str(),
        Some("Succeeded" | "Failed" | "Pending")
    );
    if !finished && pod.meta().deletion_timestamp.is_none() {
        spend_budget(call, pod.meta()).await?;
    }
    let options = eviction["deleteOptions"].clone();
    let body = if options.is_null() { Bytes::new() } else { Bytes::from(options.to_string()) };
    let target = Call::new(
        call.server,
        call.user,
        (call.info, call.query),
        (call.main_pod_row(), None),
        &call.manager,
    )?;
    delete::delete(&target, body, "application/json").await?;
    Ok(created())
}

async fn spend_budget(call: &Call<'_>, pod: &api::Meta) -> Result<(), Status> {
    let row =
        call.server.registry.find("policy", "v1", "poddisruptionbudgets", "").expect("built in");
    let budgets = call.server.collection(row);
    let page = budgets.list(&format!("{}/", call.info.namespace), None, 0, usize::MAX, &|_| true);
    for budget in page.map(|p| p.objects).unwrap_or_default() {
        let tree = budget.to_value();
        let selector = LabelSelector::from_json(&tree["spec"]["selector"]);
        if tree["spec"]["selector"].is_null() || !selector.matches(pod) {
            continue;
        }
        let info = crate::request::RequestInfo {
            name: budget.meta().name.to_string(),
            subresource: "status".into(),
            ..call.info.clone()
        };
        let status_row = call
            .server
            .registry
            .find("policy", "v1", "poddisruptionbudgets", "status")
            .expect("built in");
        let spend = Call::new(
            call.server,
            call.user,
            (&info, call.query),
            (status_row, None),
            &call.manager,
        )?;
        change(&spend, Operation::Update, |budget| {
            let allowed = budget["status"]["disruptionsAllowed"].as_i64().unwrap_or(0);
            if allowed <= 0 {
                return Err(too_many(&info.name, budget));
            }
            let mut budget = budget.clone();
            budget["status"]["disruptionsAllowed"] = (allowed - 1).into();
            set_default(&mut budget["status"], "disruptedPods", json!({}));
            budget["status"]["disruptedPods"][pod.name.as_ref()] = call.now_text().into();
            crate::meta::of(&mut budget).remove("resourceVersion");
            Ok(budget)
        })
        .await?;
    }
    Ok(())
}

fn too_many(budget: &str, tree: &Value) -> Status {
    let status = &tree["status"];
    let cause = crate::meta::cause(
        "DisruptionBudget",
        "",
        format!(
            "The disruption budget {budget} needs {} healthy pods and has {} currently",
            status["desiredHealthy"], status["currentHealthy"]
        ),
    );
    let message = "Cannot evict pod as it would violate the pod's disruption budget.";
    Status::failure(429, "TooManyRequests", message).with_causes(vec![cause])
}

impl Call<'_> {
    pub(super) fn main_pod_row(&self) -> &'static api::registry::Resource {
        self.server.registry.find("", "v1", "pods", "").expect("pods are built in")
    }
}
