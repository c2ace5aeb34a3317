//! ComponentStatuses: whether the parts of the control plane are well (`pkg/registry/core/componentstatus`).
//! Nothing of it is stored: each request asks them.

use std::time::Duration;

use api::{Object, Status};
use futures::StreamExt as _;
use futures::stream::FuturesOrdered;
use serde_json::{Value, json};

use crate::parts::Parts;
use resources::call::Call;
use resources::health_check::HealthCheck;
use resources::verbs::Answer;
use resources::verbs::list::Filter;

/// How long a part may take to answer (upstream's).
const DEADLINE: Duration = Duration::from_secs(20);
/// Whatever engine it is: scripts look for this name.
const STORE: &str = "etcd-0";

/// A component that has a status.
enum Part<'s> {
    Store,
    Other(&'s dyn HealthCheck),
}

impl Part<'_> {
    fn name(&self) -> &'static str {
        match self {
            Part::Store => STORE,
            Part::Other(check) => check.name(),
        }
    }

    async fn check(&self, server: &Parts) -> Result<(), String> {
        let checked = async {
            match self {
                Part::Store => server.resources.store.catch_up().await.map_err(|e| e.to_string()),
                Part::Other(check) => check.check().await,
            }
        };
        let checked = tokio::time::timeout(DEADLINE, checked).await;
        checked.unwrap_or_else(|_| Err("context deadline exceeded".into()))
    }

    async fn status(&self, server: &Parts) -> Value {
        let (status, message) = match self.check(server).await {
            Ok(()) => ("True", "ok".to_owned()),
            Err(why) => ("False", why),
        };
        json!({"metadata": {"name": self.name()}, "conditions": [
            {"type": "Healthy", "status": status, "message": message}]})
    }
}

fn parts(server: &Parts) -> Vec<Part<'_>> {
    let others = server.components.iter().map(|check| Part::Other(&**check));
    let mut all: Vec<Part<'_>> = others.chain([Part::Store]).collect();
    all.sort_by_key(Part::name);
    all
}

/// One of them.
pub(crate) async fn get(server: &Parts, call: &Call<'_>) -> Result<Answer, Status> {
    let all = parts(server);
    let one = all.iter().find(|part| part.name() == call.context.info.name);
    let mut value = one.ok_or_else(|| call.not_found())?.status(server).await;
    value["kind"] = "ComponentStatus".into();
    value["apiVersion"] = "v1".into();
    Ok(Answer::Tree { code: 200, value })
}

/// All of them, asked at once, by name.
pub(crate) async fn list(server: &Parts, call: &Call<'_>) -> Result<Answer, Status> {
    let filter = Filter::of(call)?;
    let all = parts(server);
    let asked: FuturesOrdered<_> = all.iter().map(|part| part.status(server)).collect();
    let is_selected = |status: &Value| filter.selects(&Object::new(status, 0, &[]));
    let statuses: Vec<Value> = asked.collect().await;
    let items: Vec<Value> = statuses.into_iter().filter(is_selected).collect();
    let value =
        json!({"kind": "ComponentStatusList", "apiVersion": "v1", "metadata": {}, "items": items});
    Ok(Answer::Tree { code: 200, value })
}
