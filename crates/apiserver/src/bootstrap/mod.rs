//! Objects that every cluster starts with: namespaces, roles and bindings, priority classes, the
//! `kubernetes` Service and its endpoints, the built-in groups' APIServices.
//!
//! Each is created when absent. Roles are reconciled as upstream does: missing rules come
//! back at every start unless the object says `rbac.authorization.kubernetes.io/autoupdate: false`.

mod api_services;
mod client_ca;
mod endpoints;
mod flows;
mod legacy_tokens;
mod node_ports;
mod roles;
mod service_range;

use auth::User;
use client::{Client, Error, Request, Response};
use http::Method;
use serde_json::{Value, json};

use crate::expiry;
use crate::local::Local;
use crate::server::Server;

/// Where the objects of one kind are created.
fn collection(api_version: &str, plural: &str, namespace: &str) -> String {
    let root = if api_version.contains('/') { "/apis" } else { "/api" };
    match namespace {
        "" => format!("{root}/{api_version}/{plural}"),
        ns => format!("{root}/{api_version}/namespaces/{ns}/{plural}"),
    }
}

async fn call(
    client: &Client,
    method: Method,
    target: String,
    body: &Value,
) -> Result<Response, Error> {
    let body = Local::body(body);
    client.call(Request { method, target, content_type: None, body }).await
}

/// Creates the object unless it exists.
async fn ensure(client: &Client, plural: &str, object: &Value) -> Result<(), Error> {
    let text = |v: &Value| v.as_str().unwrap_or("").to_owned();
    let target =
        collection(&text(&object["apiVersion"]), plural, &text(&object["metadata"]["namespace"]));
    let present = call(
        client,
        Method::GET,
        format!("{target}/{}", text(&object["metadata"]["name"])),
        &json!({}),
    )
    .await;
    match present {
        Ok(_) => Ok(()),
        Err(e) if e.is_not_found() => match call(client, Method::POST, target, object).await {
            Err(e) if e.is_already_exists() => Ok(()),
            other => other.map(drop),
        },
        Err(e) => Err(e),
    }
}

impl Server {
    /// Makes what is missing; the server is ready afterwards.
    pub async fn bootstrap(&self, tasks: &client::Tasks) -> Result<(), Error> {
        let client = self.own_client(tasks);
        for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
            let namespace =
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            ensure(&client, "namespaces", &namespace).await?;
        }
        roles::reconcile(&client).await?;
        let recorder = client::Recorder::new(client.clone(), tasks, "kube-apiserver", "");
        self.parts.resources.admission.cluster.record_by(recorder);
        for (name, value, description) in PRIORITIES {
            let class = json!({
                "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name},
                "value": value, "description": description,
            });
            ensure(&client, "priorityclasses", &class).await?;
        }
        let local = self.parts.aggregator.local();
        api_services::publish(&client, local).await?;
        if local.is_some() {
            ensure(&client, "clusterroles", &crate::resource_metrics::role()).await?;
        }
        self.bootstrap_flows(tasks).await?;
        self.publish_range(&client).await?;
        self.repair_ports(client.clone(), tasks).await?;
        let server = self.clone();
        tasks.spawn("return of addresses and ports", async move {
            server.parts.resources.allocators.return_claims().await;
        });
        self.publish_address(&client, tasks).await?;
        self.follow_addresses(client.clone(), tasks);
        self.track_legacy_tokens(client.clone(), tasks).await?;
        let aggregator = self.parts.aggregator.clone();
        tasks.spawn("API service availability", aggregator.run(client.clone()));
        self.follow_definitions(client, tasks);
        if !self.parts.resources.store.is_shared() {
            let events = self.parts.resources.collection_of("", "v1", "events");
            let expiry = expiry::run(
                self.parts.resources.store.clone(),
                events,
                self.parts.resources.settings.event_ttl,
            );
            tasks.spawn("event expiry", expiry);
        }
        let server = self.clone();
        tasks.spawn("document expiry", async move { server.parts.documents.expire().await });
        let history = self.parts.limits.history;
        if !history.is_zero() {
            let store = self.parts.resources.store.clone();
            tasks.spawn("history", resources::limits::forget_regularly(store, history));
        }
        self.parts.life.bootstrapped();
        Ok(())
    }

    /// The `kubernetes` Service, its Endpoints and its slice.
    async fn publish_address(&self, client: &Client, tasks: &client::Tasks) -> Result<(), Error> {
        let port = self.parts.advertise.1;
        let cluster_ip = self.parts.resources.allocators.network().api_server_ip().to_string();
        let labels = json!({"component": "apiserver", "provider": "kubernetes"});
        let service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "kubernetes", "namespace": "default", "labels": labels},
            "spec": {
                "type": "ClusterIP", "clusterIP": cluster_ip, "sessionAffinity": "None",
                "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port}],
            },
        });
        ensure(client, "services", &service).await?;
        self.publish_endpoints(client, tasks).await
    }

    /// A client with the server's own identity.
    fn own_client(&self, tasks: &client::Tasks) -> Client {
        let user = User::system_masters("system:apiserver");
        let local = Local::new(self.clone(), user, "kube-apiserver", tasks.clone());
        Client::new(std::sync::Arc::new(local))
    }
}

/// Brings an object that exists, or may be created by PUT, to this state.
async fn put(client: &Client, plural: &str, object: &Value) -> Result<(), Error> {
    let text = |v: &Value| v.as_str().unwrap_or("").to_owned();
    let target =
        collection(&text(&object["apiVersion"]), plural, &text(&object["metadata"]["namespace"]));
    let target = format!("{target}/{}", text(&object["metadata"]["name"]));
    call(client, Method::PUT, target, object).await.map(drop)
}

const PRIORITIES: [(&str, i64, &str); 2] = [
    (
        "system-node-critical",
        2_000_001_000,
        "Used for system critical pods that must not be moved from their current node.",
    ),
    (
        "system-cluster-critical",
        2_000_000_000,
        "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
    ),
];
