//! Eviction: a deletion that asks the pod's disruption budget first (registry `EvictionREST`).

use api::Status;
use api::selector::LabelSelector;
use auth::RequestInfo;
use serde_json::{Value, json};

use super::{budget, done};
use crate::call::Call;
use crate::verbs::delete::{self, Options};
use crate::verbs::update::{Operation, change};
use crate::verbs::{Answer, update};
use strategy::meta;
use validation::set_default;

/// Tries when the pod changes meanwhile.
const RETRIES: usize = 20;
const SEVERAL: &str = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";

pub(super) async fn evict(call: &Call<'_>, eviction: Value) -> Result<Answer, Status> {
    let options = check(call, &eviction)?;
    let mut target = call.about(call.context.info, call.pods_row())?;
    target.context.dry_run = options.dry_run;
    let evicting = Evicting { call: target, options };
    evicting.run().await?;
    Ok(done())
}

/// The body is about the pod of the path, and its options can be followed.
fn check(call: &Call<'_>, eviction: &Value) -> Result<Options, Status> {
    let (name, home) = (meta::text(eviction, "name"), meta::text(eviction, "namespace"));
    if !home.is_empty() && home != call.context.info.namespace {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    if name != call.context.info.name {
        return Err(Status::bad_request("name in URL does not match name in Eviction object"));
    }
    let sent = &eviction["deleteOptions"];
    if sent["ignoreStoreReadErrorWithClusterBreakingPotential"] == true {
        let cause = meta::invalid(
            "deleteOptions.ignoreStoreReadErrorWithClusterBreakingPotential",
            &true.into(),
            "can not be set for pod eviction, try after removing the option",
        );
        return Err(Status::invalid("policy", "Eviction", name, vec![cause]));
    }
    same_dry_run(call, sent)?;
    let mut options = Options::of(call, sent)?;
    options.dry_run |= call.context.dry_run;
    Ok(options)
}

/// Request and body may both ask for a dry run, but for the same one.
fn same_dry_run(call: &Call<'_>, sent: &Value) -> Result<(), Status> {
    let asked: Vec<&str> = call.context.query.all("dryRun").collect();
    let own: Vec<&str> = validation::items(sent, "dryRun").filter_map(Value::as_str).collect();
    if asked.is_empty() || own.is_empty() || asked == own {
        return Ok(());
    }
    let why = format!(
        "Non-matching dry-run options in request and content: [{}] and [{}]",
        asked.join(" "),
        own.join(" ")
    );
    Err(Status::failure(500, "", why))
}

struct Evicting<'a> {
    /// About the pod itself.
    call: Call<'a>,
    options: Options,
}

impl Evicting<'_> {
    async fn run(&self) -> Result<(), Status> {
        let mut lost = Status::modified("", "pods", &self.call.context.info.name);
        for _ in 0..RETRIES {
            let pod = self.pod()?;
            if !budget::is_free(&pod) {
                return self.within_budget(&pod).await;
            }
            // A pending pod may become healthy meanwhile: then a budget must be asked after all.
            let bound = !budget::has_ended(&pod) && self.options.revision.is_none();
            match self.delete(bound.then(|| meta::text(&pod, "resourceVersion"))).await {
                Err(status) if status.code == 409 && self.options.revision.is_none() => {
                    lost = status;
                }
                other => return other,
            }
        }
        Err(lost)
    }

    fn pod(&self) -> Result<Value, Status> {
        let pods = self.call.resources.collection(self.call.row);
        let pod = pods.get(&self.call.key()).ok_or_else(|| self.call.not_found())?;
        Ok(pod.to_value())
    }

    /// Asks the budget, and spends a disruption of it if the pod counts.
    async fn within_budget(&self, pod: &Value) -> Result<(), Status> {
        let budgets = self.budgets(pod);
        let budget = match budgets.as_slice() {
            [] => return self.delete(None).await,
            [one] => one,
            _ => return Err(Status::failure(500, "", SEVERAL)),
        };
        if !budget::lets_unhealthy_go(budget, pod) {
            self.spend(budget, pod).await?;
            return self.delete(None).await;
        }
        // It must still be unhealthy when it goes.
        match self.delete(Some(meta::text(pod, "resourceVersion"))).await {
            Err(status) if status.code == 409 && self.options.revision.is_none() => {
                Err(budget::still_processed(meta::text(budget, "name")))
            }
            other => other,
        }
    }

    fn budgets(&self, pod: &Value) -> Vec<Value> {
        let all = self.call.resources.collection_of("policy", "v1", "poddisruptionbudgets");
        let prefix = format!("{}/", self.call.context.info.namespace);
        let page = all.list(&prefix, None, 0, usize::MAX, &|_| true);
        let trees = page.map(|p| p.objects).unwrap_or_default();
        let label = |key: &str| pod["metadata"]["labels"][key].as_str();
        let covers = |budget: &Value| {
            let selector = &budget["spec"]["selector"];
            !selector.is_null() && LabelSelector::from_json(selector).matches_with(label)
        };
        trees.iter().map(|budget| budget.to_value()).filter(covers).collect()
    }

    async fn spend(&self, budget: &Value, pod: &Value) -> Result<(), Status> {
        let (call, pod) = (&self.call, meta::text(pod, "name"));
        let info = RequestInfo {
            name: meta::text(budget, "name").to_owned(),
            subresource: "status".into(),
            ..call.context.info.clone()
        };
        let registry = call.resources.registry;
        let row = registry.find("policy", "v1", "poddisruptionbudgets", "status");
        let mut spending = call.about(&info, row.expect("built in"))?;
        spending.context.dry_run = call.context.dry_run;
        // The server's own accounting, not the requester's fields.
        spending.context.manager = "kube-apiserver".into();
        let now = call.context.now_text();
        change(&spending, Operation::Update, |budget| budget::spend(budget, pod, &now)).await?;
        Ok(())
    }

    /// Says on the pod why it goes, and deletes it; with a revision only in that state.
    async fn delete(&self, revision: Option<&str>) -> Result<(), Status> {
        let asked = revision.map(str::to_owned).or_else(|| self.options.revision.clone());
        let mut options = self.options.clone();
        options.revision = asked;
        if !options.dry_run {
            let now = self.call.context.now_text();
            let marked = change(&self.call, Operation::Internal, |pod| {
                delete::check_preconditions(("", "Pod"), pod, &options)?;
                let mut pod = pod.clone();
                mark(&mut pod, &now);
                meta::of(&mut pod).remove("resourceVersion");
                Ok(pod)
            });
            let now_at = update::revision_of(&marked.await?);
            options.revision = options.revision.and(now_at);
        }
        let (call, name) = (&self.call, self.call.context.info.name.as_str());
        delete::delete_one(call, &call.key(), name, &options).await.map(drop)
    }
}

/// The condition that tells controllers that the pod was evicted.
fn mark(pod: &mut Value, now: &str) {
    set_default(&mut pod["status"], "conditions", json!([]));
    let Some(conditions) = pod["status"]["conditions"].as_array_mut() else { return };
    let old = conditions.iter().find(|c| c["type"] == "DisruptionTarget" && c["status"] == "True");
    let since = old.map_or_else(|| now.into(), |old| old["lastTransitionTime"].clone());
    conditions.retain(|c| c["type"] != "DisruptionTarget");
    conditions.push(json!({
        "type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting", "lastProbeTime": null, "lastTransitionTime": since,
    }));
}
