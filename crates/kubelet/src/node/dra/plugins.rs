//! DRA drivers' plugins on the node: several of one driver may be there while it is updated.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use csi::Socket;
use grpc::{Answers, CallError, Channel, Settings};
use prometheus::HistogramVec;
use prost::Message;

use super::wire::*;

/// Upstream's `defaultClientCallTimeout`.
const DEADLINE: Duration = Duration::from_secs(45);
const HEADERS: &[(&str, &str)] = &[("grpc-timeout", "45S")];
/// Time until a driver tells the health of its devices for the first time.
const FIRST_HEALTH: Duration = Duration::from_secs(60 * 60);
/// Longest answer, in bytes: grpc-go's limit.
const MESSAGE_MAX: usize = 4 << 20;

/// One plugin of a driver.
pub(crate) struct DraPlugin {
    pub(crate) driver: String,
    pub(crate) endpoint: PathBuf,
    service: Service,
    calls: Channel<Socket>,
    health: Channel<Socket>,
    connected: AtomicBool,
    /// Ends with its registration.
    removed: tokio_util::sync::CancellationToken,
    took: HistogramVec,
}

fn channel(
    socket: &Path,
    headers: &'static [(&'static str, &'static str)],
    deadline: Duration,
) -> Channel<Socket> {
    let settings = Settings {
        peer: "the DRA driver",
        origin: "http://localhost".into(),
        headers,
        deadline,
        message_max: MESSAGE_MAX,
        decorate: None,
    };
    Channel::new(Socket(socket.to_owned()), settings)
}

impl DraPlugin {
    pub(super) fn new(
        driver: &str,
        endpoint: &str,
        service: Service,
        took: HistogramVec,
    ) -> DraPlugin {
        let endpoint = PathBuf::from(endpoint);
        DraPlugin {
            driver: driver.to_owned(),
            service,
            calls: channel(&endpoint, HEADERS, DEADLINE),
            health: channel(&endpoint, &[], FIRST_HEALTH),
            connected: AtomicBool::new(false),
            removed: tokio_util::sync::CancellationToken::new(),
            endpoint,
            took,
        }
    }

    pub(super) fn set_connected(&self, connected: bool) {
        self.connected.store(connected, Ordering::Relaxed);
    }

    pub(super) fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    pub(super) fn remove(&self) {
        self.removed.cancel();
        self.set_connected(false);
    }

    pub(super) async fn removed(&self) {
        self.removed.cancelled().await;
    }

    async fn call<A: Message + Default>(
        &self,
        method: &'static str,
        claims: Vec<Claim>,
    ) -> Result<A, String> {
        let begun = tokio::time::Instant::now();
        tracing::debug!(driver = self.driver, method, ?claims, "DRA call");
        let answer = self.calls.call(method, &Claims { claims }).await;
        let code = answer.as_ref().err().map_or_else(|| "OK".to_owned(), CallError::code_name);
        let labels = [self.driver.as_str(), method, code.as_str()];
        self.took.with_label_values(&labels).observe(begun.elapsed().as_secs_f64());
        answer.map_err(|e| e.go_text())
    }

    pub(super) async fn prepare(&self, claims: Vec<Claim>) -> Result<Prepared, String> {
        self.call(self.service.prepare, claims).await
    }

    pub(super) async fn unprepare(&self, claims: Vec<Claim>) -> Result<Unprepared, String> {
        self.call(self.service.unprepare, claims).await
    }

    pub(super) async fn watch_health(&self) -> Result<Answers<WatchResponse>, CallError> {
        self.health.stream(WATCH, &WatchRequest {}).await
    }
}

/// The service to use of those that the plugin says it has.
pub(crate) fn choose(driver: &str, endpoint: &str, services: &[String]) -> Result<Service, String> {
    let known = |name: &String| SERVICES.into_iter().find(|service| service.name == name);
    let why = match services.iter().find_map(known) {
        Some(service) => return Ok(service),
        None if services.is_empty() => {
            "empty list of supported gRPC services (aka supported versions)".to_owned()
        }
        None => {
            let quoted = |all: Vec<&str>| {
                let all = all.into_iter().map(|name| format!("{name:?}"));
                all.collect::<Vec<_>>().join(" ")
            };
            format!(
                "none of services supported by the plugin ([{}]) are supported by the kubelet ([{}])",
                quoted(services.iter().map(String::as_str).collect()),
                quoted(SERVICES.map(|service| service.name).into())
            )
        }
    };
    Err(format!(
        "invalid supported gRPC versions of DRA driver plugin {driver} at endpoint {endpoint}: {why}"
    ))
}

/// All plugins, in the order in which they came.
#[derive(Default)]
pub(crate) struct DraPlugins(Mutex<HashMap<String, Vec<Arc<DraPlugin>>>>);

impl DraPlugins {
    fn all(&self) -> MutexGuard<'_, HashMap<String, Vec<Arc<DraPlugin>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One plugin cannot take another one's socket.
    pub(super) fn add(&self, plugin: Arc<DraPlugin>) -> Result<(), String> {
        let mut all = self.all();
        let list = all.entry(plugin.driver.clone()).or_default();
        if list.iter().any(|other| other.endpoint == plugin.endpoint) {
            return Err(format!(
                "endpoint {} already registered for DRA driver plugin {}",
                plugin.endpoint.display(),
                plugin.driver
            ));
        }
        list.push(plugin);
        Ok(())
    }

    pub(super) fn remove(&self, driver: &str, endpoint: &str) -> Option<Arc<DraPlugin>> {
        let mut all = self.all();
        let list = all.get_mut(driver)?;
        let at = list.iter().position(|plugin| plugin.endpoint == Path::new(endpoint))?;
        let removed = list.remove(at);
        if list.is_empty() {
            all.remove(driver);
        }
        Some(removed)
    }

    /// The newest that is connected, or else the newest.
    pub(super) fn get(&self, driver: &str) -> Result<Arc<DraPlugin>, String> {
        if driver.is_empty() {
            return Err("DRA driver name is empty".to_owned());
        }
        let all = self.all();
        let list = all.get(driver).map(Vec::as_slice).unwrap_or_default();
        let connected = list.iter().rev().find(|plugin| plugin.is_connected());
        let found = connected.or_else(|| list.last()).cloned();
        found.ok_or_else(|| format!("DRA driver {driver} is not registered"))
    }

    /// Whether any plugin of the driver can be called.
    pub(super) fn is_usable(&self, driver: &str) -> bool {
        self.all().get(driver).into_iter().flatten().any(|plugin| plugin.is_connected())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_known_service_is_used_and_others_are_refused() {
        let of = |list: &[&str]| {
            let list: Vec<_> = list.iter().map(|name| (*name).to_owned()).collect();
            choose("d", "/s", &list).map(|service| service.name)
        };
        assert_eq!(of(&["v9.X", "v1beta1.DRAPlugin", "v1.DRAPlugin"]), Ok("v1beta1.DRAPlugin"));
        let head = "invalid supported gRPC versions of DRA driver plugin d at endpoint /s: ";
        assert_eq!(
            of(&[]).unwrap_err(),
            format!("{head}empty list of supported gRPC services (aka supported versions)")
        );
        assert_eq!(
            of(&["v1alpha4.Node"]).unwrap_err(),
            format!(
                r#"{head}none of services supported by the plugin (["v1alpha4.Node"]) are supported by the kubelet (["v1.DRAPlugin" "v1beta1.DRAPlugin"])"#
            )
        );
    }

    #[test]
    fn the_newest_connected_plugin_of_a_driver_is_used() {
        let plugins = DraPlugins::default();
        let took = HistogramVec::new(
            prometheus::HistogramOpts::new("t", "t"),
            &["driver_name", "method_name", "grpc_status_code"],
        );
        let took = took.unwrap();
        let plugin =
            |endpoint: &str| Arc::new(DraPlugin::new("d", endpoint, SERVICES[0], took.clone()));
        assert_eq!(plugins.get("").err().unwrap(), "DRA driver name is empty");
        assert_eq!(plugins.get("d").err().unwrap(), "DRA driver d is not registered");
        plugins.add(plugin("/a")).unwrap();
        plugins.add(plugin("/b")).unwrap();
        assert_eq!(
            plugins.add(plugin("/a")).unwrap_err(),
            "endpoint /a already registered for DRA driver plugin d"
        );
        assert_eq!(plugins.get("d").unwrap().endpoint, Path::new("/b"));
        plugins.all()["d"][0].set_connected(true);
        assert_eq!(plugins.get("d").unwrap().endpoint, Path::new("/a"));
        assert!(plugins.is_usable("d"));
        plugins.remove("d", "/a").unwrap();
        assert!(!plugins.is_usable("d") && plugins.remove("d", "/a").is_none());
    }
}
