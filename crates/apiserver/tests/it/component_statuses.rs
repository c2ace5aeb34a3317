//! ComponentStatuses: asked with each request, in lists, tables and one by one.

use std::pin::Pin;
use std::sync::Arc;

use apiserver::HealthCheck;
use serde_json::{Value, json};

use crate::harness::{Setup, World};

const ALL: &str = "/api/v1/componentstatuses";

struct Part(&'static str, Result<(), &'static str>);

impl HealthCheck for Part {
    fn name(&self) -> &'static str {
        self.0
    }

    fn check(&self) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + '_>> {
        Box::pin(async { self.1.map_err(str::to_owned) })
    }
}

async fn world() -> World {
    let components: Vec<Arc<dyn HealthCheck>> = vec![
        Arc::new(Part("scheduler", Err("not running: scheduler"))),
        Arc::new(Part("controller-manager", Ok(()))),
    ];
    World::with(Setup { components, ..Setup::default() }).await
}

#[tokio::test]
async fn every_part_is_told_with_its_health() {
    let world = world().await;
    let list = world.ask("GET", ALL, &Value::Null).await;
    assert_eq!(list.warnings(), ["299 - \"v1 ComponentStatus is deprecated in v1.19+\""]);
    let list = list.json();
    let told = |o: &Value| (o["metadata"]["name"].clone(), o["conditions"][0].clone());
    let healthy = json!({"type": "Healthy", "status": "True", "message": "ok"});
    let ill = json!({"type": "Healthy", "status": "False", "message": "not running: scheduler"});
    let items: Vec<_> = list["items"].as_array().into_iter().flatten().map(told).collect();
    assert_eq!(
        items,
        [
            (json!("controller-manager"), healthy.clone()),
            (json!("etcd-0"), healthy.clone()),
            (json!("scheduler"), ill),
        ]
    );
    let one = world.ask("GET", &format!("{ALL}/etcd-0"), &Value::Null).await.json();
    assert_eq!((one["kind"].as_str(), told(&one)), (Some("ComponentStatus"), items[1].clone()));
    let none = world.ask("GET", &format!("{ALL}/etcd-1"), &Value::Null).await.told();
    assert_eq!(none, (404, "componentstatuses \"etcd-1\" not found".into()));
}

#[tokio::test]
async fn selectors_and_tables_work_as_for_other_lists() {
    let world = world().await;
    let count = async |query: &str| {
        let list = world.ask("GET", &format!("{ALL}?{query}"), &Value::Null).await.json();
        list["items"].as_array().map(Vec::len)
    };
    assert_eq!(count("fieldSelector=metadata.name%3Dscheduler").await, Some(1));
    assert_eq!(count("labelSelector=a%3Db").await, Some(0));
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let table = world.ask_as(&world.admin, ("GET", ALL), &accept, "").await.json();
    let cells: Vec<&Value> =
        table["rows"].as_array().into_iter().flatten().map(|row| &row["cells"]).collect();
    assert_eq!(
        cells,
        [
            &json!(["controller-manager", "Healthy", "ok", ""]),
            &json!(["etcd-0", "Healthy", "ok", ""]),
            &json!(["scheduler", "Unhealthy", "not running: scheduler", ""]),
        ]
    );
}
