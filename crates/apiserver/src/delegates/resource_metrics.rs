//! `metrics.k8s.io`: what nodes and pods use, of those that are stored.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ::metrics::{NodeFigures, ResourceMetrics, node_metrics, pod_metrics, table};
use api::selector::{FieldSelector, LabelSelector};
use api::{Object, Status};
use auth::RequestInfo;
use http::Response;
use serde_json::{Value, json};

use crate::exchange::Exchange;
use crate::parts::Parts;
use crate::resource_metrics::NODES;
use resources::respond::{self, Accept, Body, Encoding, View};
use strategy::query::Query;

const PODS: &str = "/registry/pods/";

pub(super) async fn serve(
    server: &Parts,
    metrics: &ResourceMetrics,
    exchange: Exchange,
) -> Result<Response<Body>, Status> {
    let accept = Accept::of(exchange.request.headers())?;
    let Exchange { info, query, .. } = exchange;
    // These objects have no protobuf form here; clients read the answer by its type.
    let encoding = match accept.encoding {
        Encoding::Protobuf => Encoding::Json,
        other => other,
    };
    if !info.is_resource && matches!(info.verb, "get" | "head") {
        return Ok(respond::value(200, encoding, &::metrics::resources()));
    }
    if !matches!(info.resource.as_str(), "nodes" | "pods") || !info.subresource.is_empty() {
        return Err(Status::no_such_path());
    }
    if !matches!(info.verb, "get" | "list") {
        return Err(Status::method_not_allowed());
    }
    let asked = Asked { server, metrics, info: &info, query: &query };
    let objects = match info.resource.as_str() {
        "nodes" => asked.nodes().await?,
        _ => asked.pods().await?,
    };
    let shown = match (accept.view, info.verb) {
        (View::Table, _) => as_table(objects, &query),
        (_, "get") => {
            let name = match info.namespace.as_str() {
                "" => info.name.clone(),
                namespace => format!("{namespace}/{}", info.name),
            };
            let found = objects.into_iter().next();
            found.ok_or_else(|| Status::not_found(&info.group, &info.resource, &name))?
        }
        _ => json!({
            "kind": if info.resource == "nodes" { "NodeMetricsList" } else { "PodMetricsList" },
            "apiVersion": format!("{}/{}", ::metrics::GROUP, ::metrics::VERSION),
            "metadata": {}, "items": objects,
        }),
    };
    Ok(respond::value(200, encoding, &shown))
}

fn as_table(objects: Vec<Value>, query: &Query) -> Value {
    let (columns, cells) = table(&objects);
    let include = query.get("includeObject").unwrap_or("");
    let row = |(cells, object): (Value, Value)| {
        let object = match include {
            "Object" => object,
            "None" => Value::Null,
            _ => respond::partial(&object),
        };
        json!({"cells": cells, "object": object})
    };
    let rows: Vec<Value> = cells.into_iter().zip(objects).map(row).collect();
    json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {},
        "columnDefinitions": columns, "rows": rows})
}

/// A request for figures.
struct Asked<'a> {
    server: &'a Parts,
    metrics: &'a ResourceMetrics,
    info: &'a RequestInfo,
    query: &'a Query,
}

impl Asked<'_> {
    async fn nodes(&self) -> Result<Vec<Value>, Status> {
        let nodes = self.selected(NODES, "", "nodes")?;
        let names: Vec<String> = nodes.iter().map(|node| node.meta().name.to_string()).collect();
        let figures = self.figures(&names).await;
        let now = now();
        let shown = nodes.iter().filter_map(|node| {
            let name = &*node.meta().name;
            let usage = figures.get(name)?.node?;
            Some(node_metrics(name, &labels(node), &now, &usage))
        });
        Ok(shown.collect())
    }

    async fn pods(&self) -> Result<Vec<Value>, Status> {
        let namespace = match self.info.namespace.as_str() {
            "" => String::new(),
            namespace => format!("{namespace}/"),
        };
        let pods = self.selected(PODS, &namespace, "pods")?;
        let placed: Vec<(Arc<Object>, String)> =
            pods.into_iter().map(|pod| (pod.clone(), node_of(&pod))).collect();
        let nodes: BTreeSet<&String> =
            placed.iter().map(|(_, node)| node).filter(|node| !node.is_empty()).collect();
        let nodes: Vec<String> = nodes.into_iter().cloned().collect();
        let figures = self.figures(&nodes).await;
        let now = now();
        let shown = placed.iter().filter_map(|(pod, node)| {
            let meta = pod.meta();
            let key = (meta.namespace.to_string(), meta.name.to_string());
            let usage = figures.get(node)?.pods.get(&key)?;
            pod_metrics((&meta.namespace, &meta.name), &labels(pod), &now, usage)
        });
        Ok(shown.collect())
    }

    /// The stored objects that the request is about, by key.
    fn selected(
        &self,
        prefix: &str,
        namespace: &str,
        plural: &str,
    ) -> Result<Vec<Arc<Object>>, Status> {
        let (info, query) = (self.info, self.query);
        let all = self.server.resources.store.collection(prefix);
        let all = all.ok_or_else(|| Status::internal(format!("{plural} are not stored")))?;
        if info.verb == "get" {
            let found = all.get(&format!("{namespace}{}", info.name));
            return Ok(vec![found.ok_or_else(|| Status::not_found("", plural, &info.name))?]);
        }
        let labels: LabelSelector = query.label_selector()?;
        let fields: FieldSelector = query.field_selector()?;
        let keep = |o: &Object| labels.matches(o.meta()) && fields.matches(o.meta(), &[]);
        let page = all.list(namespace, None, 0, usize::MAX, &keep);
        Ok(page.map(|page| page.objects).unwrap_or_default())
    }

    async fn figures(
        &self,
        nodes: &[String],
    ) -> std::collections::HashMap<String, Arc<NodeFigures>> {
        let all = self.server.resources.store.collection(NODES);
        let all = all.and_then(|all| all.list("", None, 0, usize::MAX, &|_| true).ok());
        let all = all.map(|page| page.objects).unwrap_or_default();
        let all: Vec<String> = all.iter().map(|node| node.meta().name.to_string()).collect();
        let wanted: Vec<String> = nodes.iter().filter(|name| all.contains(name)).cloned().collect();
        self.metrics.of(&wanted, &all).await
    }
}

/// The node that a pod is bound to; empty when there is none.
fn node_of(pod: &Object) -> String {
    pod.to_value()["spec"]["nodeName"].as_str().unwrap_or("").to_owned()
}

fn labels(object: &Object) -> Value {
    let all: BTreeMap<&str, &str> =
        object.meta().labels.iter().map(|(key, value)| (&**key, &**value)).collect();
    json!(all)
}

fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
