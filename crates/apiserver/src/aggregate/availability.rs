//! Whether extension servers answer, written to the APIServices' condition `Available` (`kube-aggregator`
//! `controllers/status/remote`). What they serve is learnt on the way.

use std::sync::Arc;
use std::time::Duration;

use auth::User;
use bytes::Bytes;
use client::{Client, Request};
use http::StatusCode;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::time::Instant;
use validation::items;

use super::connection::set_user;
use super::discovery::converted;
use super::{Aggregator, Extension, Published};
use strategy::conditions::{condition, set_condition};

/// Longest wait for an answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Where extensions publish their documents, and the longest wait for one (upstream's `specDownloadTimeout`).
const OPEN_API: &str = "/openapi/v2";
const DOCUMENT_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest list of resources, and longest document.
const BODY_MAX: usize = 16 << 20;
/// Pause until the next look at all extensions, and after a failed one.
const PERIOD: Duration = Duration::from_secs(30);
const RETRY: Duration = Duration::from_secs(5);
/// Changes within this time are looked at together.
const SETTLE: Duration = Duration::from_millis(100);

/// Status, reason, message of the condition.
type Verdict = (bool, &'static str, String);

impl Aggregator {
    /// Looks after all extensions, for ever.
    pub(crate) async fn run(self: Arc<Aggregator>, client: Client) {
        // A document that is slow to come keeps nobody from hearing that its extension is there.
        tokio::join!(self.check_always(&client), self.learn_documents());
    }

    /// Reads the documents of extensions that answer, after each look at them, for ever.
    async fn learn_documents(&self) {
        loop {
            self.checked.notified().await;
            let current = self.current();
            let there = current.all.iter().filter(|present| present.is_available);
            let learning = there.map(|present| self.learn_document(&present.extension));
            futures::future::join_all(learning).await;
        }
    }

    async fn check_always(&self, client: &Client) {
        let mut signature = None;
        let mut due = Instant::now();
        loop {
            let watched = [
                "/registry/apiregistration.k8s.io/apiservices/",
                "/registry/services/specs/",
                "/registry/endpointslices/",
            ];
            let watchers = watched.map(|prefix| {
                let collection = self.store.collection(prefix)?;
                collection.watch(collection.last_change()).ok()
            });
            let [Some(mut services), Some(mut backends), Some(mut slices)] = watchers else {
                tokio::time::sleep(RETRY).await;
                continue;
            };
            let now = self.signature();
            if signature.as_ref() != Some(&now) || due <= Instant::now() {
                let all_well = self.check_all(client).await;
                signature = Some(now);
                due = Instant::now() + if all_well { PERIOD } else { RETRY };
            }
            tokio::select! {
                _ = services.next() => {}
                _ = backends.next() => {}
                _ = slices.next() => {}
                () = tokio::time::sleep_until(due), if !self.current().all.is_empty() => {}
            }
            tokio::time::sleep(SETTLE).await;
        }
    }

    /// What the verdicts depend on in the store: specs, services and their slices.
    fn signature(&self) -> Vec<(Box<str>, i64, u64, u64)> {
        let current = self.current();
        let of = |extension: &Extension| {
            let connector = &extension.connector;
            let key = format!("{}/{}", connector.namespace, connector.service);
            let service = self.store.collection("/registry/services/specs/");
            let service = service.and_then(|all| all.get(&key)).map_or(0, |s| s.revision());
            let slices: u64 = self.slices(extension).iter().map(|s| s.revision()).sum();
            (extension.state.0.clone(), extension.state.1, service, slices)
        };
        current.all.iter().map(|present| of(&present.extension)).collect()
    }

    fn slices(&self, extension: &Extension) -> Vec<Arc<api::Object>> {
        let connector = &extension.connector;
        let Some(all) = self.store.collection("/registry/endpointslices/") else {
            return Vec::new();
        };
        let of_service = |object: &api::Object| {
            object.meta().label("kubernetes.io/service-name") == Some(&*connector.service)
        };
        let prefix = format!("{}/", connector.namespace);
        let page = all.list(&prefix, None, 0, usize::MAX, &of_service);
        page.map(|page| page.objects).unwrap_or_default()
    }

    /// True when all answered.
    async fn check_all(&self, client: &Client) -> bool {
        let current = self.current();
        let checks = current.all.iter().map(|present| async {
            let verdict = self.check(&present.extension).await;
            let is_well = verdict.0;
            if let Err(error) = self.write(client, &present.extension, verdict).await {
                tracing::debug!(%error, "an APIService's status was not written");
                return false;
            }
            is_well
        });
        let all_well = futures::future::join_all(checks).await.into_iter().all(|is_well| is_well);
        self.checked.notify_one();
        all_well
    }

    async fn check(&self, extension: &Extension) -> Verdict {
        if let Err((reason, why)) = self.check_service(extension) {
            return (false, reason, why);
        }
        let path = extension.path();
        let url =
            format!("https://{}:{}{path}", extension.connector.host(), extension.connector.port);
        let asked = tokio::time::timeout(TIMEOUT, self.resources(extension, &path)).await;
        let why = match asked {
            Ok(Ok(list)) => {
                extension.learn(converted(&list, (&extension.group, &extension.version)));
                return (true, "Passed", "all checks passed".into());
            }
            Ok(Err(why)) => why,
            Err(_) => format!("Get \"{url}\": context deadline exceeded"),
        };
        (false, "FailedDiscoveryCheck", format!("failing or missing response from {url}: {why}"))
    }

    /// The service is there, listens on the port and has endpoints.
    fn check_service(&self, extension: &Extension) -> Result<(), (&'static str, String)> {
        let connector = &extension.connector;
        let (namespace, name, port) = (&connector.namespace, &connector.service, connector.port);
        let stored = self.store.collection("/registry/services/specs/");
        let stored = stored.and_then(|all| all.get(&format!("{namespace}/{name}")));
        let Some(stored) = stored else {
            return Err((
                "ServiceNotFound",
                format!("service/{name} in {namespace:?} is not present"),
            ));
        };
        let service = stored.to_value();
        if service["spec"]["type"].as_str().unwrap_or("ClusterIP") != "ClusterIP" {
            return Ok(());
        }
        let Some(own) = items(&service["spec"], "ports").find(|own| own["port"] == port) else {
            let why = format!("service/{name} in {namespace:?} is not listening on port {port}");
            return Err(("ServicePortError", why));
        };
        let port_name = own["name"].as_str().unwrap_or("");
        let slices = self.slices(extension);
        if slices.is_empty() {
            let why = format!("cannot find endpointslices for service/{name} in {namespace:?}");
            return Err(("EndpointsNotFound", why));
        }
        let is_active = |slice: &Value| {
            let has_port =
                items(slice, "ports").any(|p| p["name"].as_str().unwrap_or("") == port_name);
            has_port && items(slice, "endpoints").any(|e| e["conditions"]["ready"] != false)
        };
        match slices.iter().any(|slice| is_active(&slice.to_value())) {
            true => Ok(()),
            false => Err((
                "MissingEndpoints",
                format!(
                    "endpointslices for service/{name} in {namespace:?} have no addresses with port name {port_name:?}"
                ),
            )),
        }
    }

    /// The list of an extension's resources.
    async fn resources(&self, extension: &Extension, path: &str) -> Result<Value, String> {
        let asker = User::new("system:kube-aggregator", &["system:masters"]);
        let (code, _, body) = self.fetch(extension, path, (&asker, None)).await?;
        if !code.is_success() {
            return Err(format!("bad status from {path}: {}", code.as_u16()));
        }
        // A server that answers, but with no such list, is available; discovery has nothing to show.
        Ok(serde_json::from_slice(&body).unwrap_or_default())
    }

    /// Asks for an extension's OpenAPI document, if that is another one now (`kube-aggregator`
    /// `controllers/openapi/aggregator/downloader.go`). One that has none has nothing to publish; where the asking
    /// fails, the former stays.
    async fn learn_document(&self, extension: &Extension) {
        let asker = User::new("system:aggregator", &[]);
        let known = extension.published().map(|known| known.tag.clone());
        let asked = self.fetch(extension, OPEN_API, (&asker, known.as_deref()));
        let told = match tokio::time::timeout(DOCUMENT_TIMEOUT, asked).await {
            Ok(Ok((StatusCode::OK, tag, body))) => Ok((tag, body)),
            Ok(Ok((StatusCode::NOT_MODIFIED, ..))) => return,
            Ok(Ok((StatusCode::NOT_FOUND, ..))) => return extension.publish(None),
            Ok(Ok((code, ..))) => Err(format!("HTTP {}", code.as_u16())),
            Ok(Err(why)) => Err(why),
            Err(_) => Err("context deadline exceeded".into()),
        };
        let published = told.and_then(|(tag, body)| {
            let tree: Value = serde_json::from_slice(&body).map_err(|e| e.to_string())?;
            let own = format!("{}/", extension.path());
            let json = Bytes::from(discovery::openapi::below(&tree, &own).to_string());
            let digest = || pki::sha256(&body).iter().map(|byte| format!("{byte:02X}")).collect();
            Ok(Published { tag: tag.unwrap_or_else(digest), json })
        });
        match published {
            Ok(published) => extension.publish(Some(published)),
            Err(why) => {
                let extension = &*extension.name;
                tracing::debug!(extension, why, "an extension's OpenAPI document was not read");
            }
        }
    }

    /// What an extension answers: code, entity tag, body.
    async fn fetch(
        &self,
        extension: &Extension,
        path: &str,
        (asker, known): (&User, Option<&str>),
    ) -> Result<(StatusCode, Option<String>, Bytes), String> {
        let io = extension.connector.open(&*self.services).await?;
        let connection = hyper::client::conn::http1::handshake(TokioIo::new(io)).await;
        let (mut sender, connection) = connection.map_err(|e| e.to_string())?;
        let mut request = http::Request::get(path)
            .header("host", extension.connector.host())
            .header("accept", "application/json");
        if let Some(known) = known {
            request = request.header("if-none-match", known);
        }
        let mut request = request.body(Empty::<Bytes>::new()).map_err(|e| e.to_string())?;
        set_user(request.headers_mut(), asker);
        let answered = async {
            let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
            let code = response.status();
            let tag = response.headers().get(http::header::ETAG);
            let tag = tag.and_then(|tag| tag.to_str().ok()).map(str::to_owned);
            let body = Limited::new(response.into_body(), BODY_MAX).collect().await;
            Ok((code, tag, body.map_err(|e| e.to_string())?.to_bytes()))
        };
        // The connection works for the exchange, and ends with it.
        let driving = async {
            drop(connection.await);
            std::future::pending().await
        };
        tokio::select! {
            answered = answered => answered,
            never = driving => never,
        }
    }

    async fn write(
        &self,
        client: &Client,
        extension: &Extension,
        (is_available, reason, message): Verdict,
    ) -> Result<(), client::Error> {
        let stored = self.collection().and_then(|all| all.get(&extension.name));
        let Some(stored) = stored else { return Ok(()) };
        let mut tree = stored.to_value();
        let mut status = tree["status"].take();
        if status.is_null() {
            status = serde_json::json!({});
        }
        let before = status.clone();
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let new = condition("Available", is_available, reason, &message);
        set_condition(&mut status, new, &now);
        if status == before {
            return Ok(());
        }
        tree["status"] = status;
        let target =
            format!("/apis/apiregistration.k8s.io/v1/apiservices/{}/status", extension.name);
        let body = Bytes::from(tree.to_string());
        let request = Request { method: http::Method::PUT, target, content_type: None, body };
        match client.call(request).await {
            Err(error) if error.is_conflict() || error.is_not_found() => Ok(()),
            other => other.map(drop),
        }
    }
}
