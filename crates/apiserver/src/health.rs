//! `/healthz`, `/livez`, `/readyz`: named checks, each with a path of its own
//! (apiserver `server/healthz`). The wiring may add checks to all but `/livez` ([`HealthCheck`]).

use std::time::Duration;

use api::Status;
use http::Response;

use crate::parts::Parts;
use resources::health_check::HealthCheck;
use resources::respond::{self, Body};
use strategy::query::Query;

/// How long the store may take to say that it is there.
const STORE_TIMEOUT: Duration = Duration::from_secs(2);

/// What is asked of a server, in upstream's names and order.
#[derive(Clone, Copy)]
enum Check<'s> {
    Ping,
    Store,
    StoreReadiness,
    Added(&'s dyn HealthCheck),
    Bootstrap,
    Shutdown,
}

impl Check<'_> {
    fn name(self) -> &'static str {
        match self {
            Check::Ping => "ping",
            Check::Store => "etcd",
            Check::StoreReadiness => "etcd-readiness",
            Check::Added(added) => added.name(),
            Check::Bootstrap => "poststarthook/rbac/bootstrap-roles",
            Check::Shutdown => "shutdown",
        }
    }

    /// Why the check fails, if it does.
    async fn run(self, server: &Parts) -> Result<(), String> {
        let life = &server.life;
        match self {
            Check::Ping => Ok(()),
            Check::Store | Check::StoreReadiness => {
                match tokio::time::timeout(STORE_TIMEOUT, server.resources.store.catch_up()).await {
                    Ok(answered) => answered.map_err(|error| error.to_string()),
                    Err(_) => Err(format!("no answer within {STORE_TIMEOUT:?}")),
                }
            }
            Check::Added(added) => added.check().await,
            Check::Bootstrap if life.is_bootstrapped() => Ok(()),
            Check::Bootstrap => Err("not finished".into()),
            Check::Shutdown if life.is_ending() => Err("process is shutting down".into()),
            Check::Shutdown => Ok(()),
        }
    }
}

/// The paths of all checks.
pub(crate) fn paths(server: &Parts) -> Vec<String> {
    let mut paths = Vec::new();
    for endpoint in ["healthz", "livez", "readyz"] {
        paths.push(format!("/{endpoint}"));
        let checks = checks_of(server, endpoint);
        paths.extend(checks.iter().map(|check| format!("/{endpoint}/{}", check.name())));
    }
    paths
}

fn checks_of<'s>(server: &'s Parts, endpoint: &str) -> Vec<Check<'s>> {
    let mut checks = vec![Check::Ping, Check::Store];
    if endpoint == "readyz" {
        checks.push(Check::StoreReadiness);
    }
    if endpoint != "livez" {
        checks.extend(server.health_checks.iter().map(|added| Check::Added(&**added)));
    }
    checks.push(Check::Bootstrap);
    if endpoint == "readyz" {
        checks.push(Check::Shutdown);
    }
    checks
}

/// Answers `/<endpoint>` and `/<endpoint>/<check>`.
pub(crate) async fn answer(
    server: &Parts,
    endpoint: &str,
    check: &str,
    query: &Query,
) -> Result<Response<Body>, Status> {
    let checks = checks_of(server, endpoint);
    if !check.is_empty() {
        let one = checks.iter().find(|one| one.name() == check);
        let one = one.ok_or_else(Status::no_such_path)?;
        return Ok(match one.run(server).await {
            Ok(()) => text(200, "ok".into()),
            Err(why) => text(500, format!("internal server error: {why}\n")),
        });
    }
    Ok(all(server, endpoint, &checks, query).await)
}

async fn all(
    server: &Parts,
    endpoint: &str,
    checks: &[Check<'_>],
    query: &Query,
) -> Response<Body> {
    let excluded: Vec<&str> = query.all("exclude").collect();
    let mut lines = String::new();
    let mut failed = false;
    for check in checks {
        let name = check.name();
        if excluded.contains(&name) {
            lines += &format!("[+]{name} excluded: ok\n");
            continue;
        }
        let outcome = check.run(server).await;
        server.checked.observe(name, endpoint, outcome.is_ok());
        if let Err(why) = outcome {
            tracing::debug!(check = name, endpoint, why, "health check failed");
            // Anybody may ask: why it failed is in the log.
            lines += &format!("[-]{name} failed: reason withheld\n");
            failed = true;
        } else {
            lines += &format!("[+]{name} ok\n");
        }
    }
    lines += &unmatched(&excluded, checks);
    match (failed, query.get("verbose")) {
        (true, _) => text(500, format!("{lines}{endpoint} check failed\n")),
        (false, None) => text(200, "ok".into()),
        (false, Some(_)) => text(200, format!("{lines}{endpoint} check passed\n")),
    }
}

fn unmatched(excluded: &[&str], checks: &[Check<'_>]) -> String {
    let known = |name: &&&str| checks.iter().any(|check| check.name() == **name);
    let unknown: Vec<String> =
        excluded.iter().filter(|name| !known(name)).map(|name| format!("{name:?}")).collect();
    if unknown.is_empty() {
        return String::new();
    }
    format!("warn: some health checks cannot be excluded: no matches for {}\n", unknown.join(", "))
}

fn text(code: u16, body: String) -> Response<Body> {
    respond::with_type(code, "text/plain; charset=utf-8", body)
}
