//! Paths of the node API: who may, and what answers.

use std::collections::HashMap;
use std::sync::Arc;

use client::Tasks;
use http::Method;
use k8s_openapi::api::core::v1::Pod;
use runtime::cri::{ContainerFilter, PodSandboxFilter};
use runtime::cri::{ContainerState, ContainerStateValue, PodSandboxState};
use runtime::{ExecSession, StreamOptions, TerminalSize};
use serde_json::json;
use streams::{forward, remote};

use super::{
    Request, Response, answer, cadvisor, configz, full, logs, metrics, node_logs, reviews, stats,
    upgraded, zpages,
};
use crate::config::NodeUser;
use crate::exec;
use crate::kubelet::Shared;
use crate::spec::{labels, uid_of};

/// Most that a command of `/run` may take: nobody looks at it while it runs.
const RUN_MAX: std::time::Duration = std::time::Duration::from_secs(3600);

/// Query parameters; a name may come several times.
pub(super) type Query = Vec<(String, String)>;

pub(super) fn query(request: &Request) -> Query {
    let text = request.uri().query().unwrap_or("");
    let pairs = text.split('&').filter(|p| !p.is_empty());
    pairs
        .map(|p| {
            let (name, value) = p.split_once('=').unwrap_or((p, ""));
            (unescape(name), unescape(value))
        })
        .collect()
}

fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        match b {
            b'+' => out.push(b' '),
            b'%' => {
                let pair: Vec<u8> = bytes.by_ref().take(2).collect();
                let hex =
                    std::str::from_utf8(&pair).ok().and_then(|h| u8::from_str_radix(h, 16).ok());
                out.extend(hex);
            }
            b => out.push(b),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// A path's own escapes; a plus is a plus there.
fn unescape_path(text: &str) -> String {
    unescape(&text.replace('+', "%2B"))
}

pub(super) fn get<'a>(query: &'a Query, name: &str) -> Option<&'a str> {
    query.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
}

/// The options of logs are read as API requests are: what is there and neither `0` nor `false` is
/// true (apimachinery `runtime/conversion.go`).
pub(super) fn is_true(text: &str) -> bool {
    text != "0" && !text.eq_ignore_ascii_case("false")
}

fn flag(query: &Query, names: [&str; 2]) -> bool {
    names.iter().any(|n| get(query, n).is_some_and(|v| matches!(v, "1" | "true" | "True" | "TRUE")))
}

/// Subresources of `nodes` that allow a path, most specific first.
fn subresources(first: &str) -> &'static [&'static str] {
    match first {
        "stats" => &["stats"],
        "checkpoint" => &["checkpoint"],
        "metrics" => &["metrics"],
        "logs" => &["log"],
        "healthz" => &["healthz", "proxy"],
        "pods" | "runningpods" => &["pods", "proxy"],
        "configz" => &["configz", "proxy"],
        "statusz" => &["statusz"],
        // Flags are settings.
        "flagz" => &["configz"],
        _ => &["proxy"],
    }
}

pub(super) async fn handle(
    shared: Arc<Shared>,
    tasks: Tasks,
    user: Option<NodeUser>,
    request: Request,
) -> Response {
    let user = match (user, reviews::bearer(request.headers())) {
        (Some(user), _) => Some(user),
        (None, Some(token)) => shared.authorizer.authenticate(token).await,
        (None, None) => None,
    };
    let Some(user) = user else { return answer(401, "Unauthorized") };
    let path = request.uri().path().to_owned();
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let verb = match *request.method() {
        Method::GET => "get",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "get",
    };
    let allowed = subresources(parts[0]);
    if !shared.authorizer.allow(&user, verb, allowed).await {
        let text = format!(
            "Forbidden (user={}, verb={verb}, resource=nodes, subresource(s)=[{}])",
            user.name,
            allowed.join(" ")
        );
        return answer(403, text);
    }
    match parts.as_slice() {
        ["healthz", ..] => health(&shared, &tasks),
        ["pods"] => pods(&shared),
        ["stats", "summary"] => stats::summary(&shared).await,
        ["metrics", "resource"] => stats::resource_metrics(&shared).await,
        ["metrics"] => metrics::own(&shared).await,
        ["metrics", "cadvisor"] => cadvisor::serve(&shared).await,
        ["metrics", "probes"] => metrics::probes(&shared),
        ["metrics", "slis"] => answer(200, shared.checks.text()),
        ["configz"] => configz::serve(&shared.config),
        ["statusz"] => zpages::statusz(&shared.config, request.headers()),
        ["flagz"] => zpages::flagz(&shared.config, request.headers()),
        ["logs", rest @ ..] => {
            let path = unescape_path(&rest.join("/"));
            node_logs::serve(&shared, &tasks, path).await
        }
        ["runningpods"] => running_pods(&shared).await,
        ["containerLogs", ns, pod, container] => {
            logs::serve(shared, &tasks, &request, ns, pod, container).await
        }
        ["checkpoint", ns, pod, container] => answer(
            500,
            format!(
                "checkpointing of {ns}/{pod}/{container} failed (rpc error: code = Unimplemented desc = \
                 the container runtime does not support checkpoints)"
            ),
        ),
        ["exec" | "attach" | "run" | "portForward", rest @ ..] => {
            streaming(shared, tasks, request, parts[0], rest).await
        }
        _ => answer(404, "404 page not found"),
    }
}

fn health(shared: &Shared, tasks: &Tasks) -> Response {
    shared.checks.observe("ping", "healthz", true);
    shared.checks.observe("syncloop", "healthz", tasks.health().failing().is_empty());
    match tasks.health().failing().as_slice() {
        [] => answer(200, "ok"),
        failing => answer(500, format!("not running: {}", failing.join(", "))),
    }
}

fn pods(shared: &Shared) -> Response {
    let items: Vec<_> = shared.pods.list().iter().map(|p| json!(**p)).collect();
    let list = json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items});
    super::json(&list)
}

/// What the runtime has, whatever the API says.
async fn running_pods(shared: &Shared) -> Response {
    let sandboxes = shared.runtime.list_pod_sandboxes(PodSandboxFilter::default()).await;
    let containers = shared.runtime.list_containers(ContainerFilter::default()).await;
    let (sandboxes, containers) = match (sandboxes, containers) {
        (Ok(sandboxes), Ok(containers)) => (sandboxes, containers),
        (Err(error), _) | (_, Err(error)) => return answer(500, error.chain()),
    };
    let pod = |sandbox: &runtime::cri::PodSandbox| {
        let meta = sandbox.metadata.clone().unwrap_or_default();
        let own = containers.iter().filter(|c| c.pod_sandbox_id == sandbox.id);
        let running = own.filter(|c| c.state == ContainerState::Running as i32);
        let shown: Vec<_> = running
            .map(|c| {
                let image = c.image.as_ref().map(|i| i.image.clone()).unwrap_or_default();
                let name = c.labels.get(labels::CONTAINER_NAME).cloned().unwrap_or_default();
                json!({"name": name, "image": image, "resources": {}})
            })
            .collect();
        json!({
            "metadata": {"name": meta.name, "namespace": meta.namespace, "uid": meta.uid},
            "spec": {"containers": shown},
            "status": {},
        })
    };
    let ready = sandboxes.iter().filter(|s| s.state == PodSandboxState::Ready as i32);
    let items: Vec<_> = ready.map(pod).collect();
    super::json(&json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
}

/// The pod of that name, and of that uid if one is given.
pub(super) fn pod(shared: &Shared, ns: &str, name: &str, uid: Option<&str>) -> Option<Arc<Pod>> {
    let pod = shared.pods.get(ns, name)?;
    // The API knows a static pod by the uid of its mirror.
    let is_mirrors = |uid: &str| shared.pods.mirror(&pod).is_some_and(|m| uid_of(&m) == uid);
    uid.is_none_or(|uid| uid_of(&pod) == uid || is_mirrors(uid)).then_some(pod)
}

fn selector(pod: &Pod) -> std::collections::BTreeMap<String, String> {
    [(labels::POD_UID.to_owned(), uid_of(pod).to_owned())].into()
}

/// The running instance of a container.
async fn running(shared: &Shared, pod: &Pod, container: &str) -> Result<String, Response> {
    let mut label_selector = selector(pod);
    label_selector.insert(labels::CONTAINER_NAME.into(), container.into());
    let state = Some(ContainerStateValue { state: ContainerState::Running as i32 });
    let filter = ContainerFilter { label_selector, state, ..ContainerFilter::default() };
    let found = shared.runtime.list_containers(filter).await;
    let found = found.map_err(|e| answer(500, e.chain()))?;
    let latest = found.into_iter().max_by_key(|c| c.created_at);
    latest
        .map(|c| c.id)
        .ok_or_else(|| answer(404, format!("container not found (\"{container}\")")))
}

async fn streaming(
    shared: Arc<Shared>,
    tasks: Tasks,
    mut request: Request,
    verb: &str,
    rest: &[&str],
) -> Response {
    let query = query(&request);
    // `…/ns/pod/uid/container` and `…/ns/pod/container`.
    let (ns, name, uid, container) = match (verb, rest) {
        ("portForward", [ns, name]) => (*ns, *name, None, ""),
        ("portForward", [ns, name, uid]) => (*ns, *name, Some(*uid), ""),
        (_, [ns, name, container]) => (*ns, *name, None, *container),
        (_, [ns, name, uid, container]) => (*ns, *name, Some(*uid), *container),
        _ => return answer(404, "404 page not found"),
    };
    let Some(pod) = pod(&shared, ns, name, uid) else {
        return answer(404, "pod does not exist");
    };
    if verb == "portForward" {
        return port_forward(shared, &tasks, request, &pod, &query).await;
    }
    let id = match running(&shared, &pod, container).await {
        Ok(id) => id,
        Err(refused) => return refused,
    };
    let words = query.iter().filter(|(n, _)| n == "command" || n == "cmd").map(|(_, v)| v.clone());
    let mut command: Vec<String> = words.collect();
    if verb == "run" {
        if let [line] = command.as_slice() {
            command = line.split_whitespace().map(str::to_owned).collect();
        }
        return run(&shared, id, command).await;
    }
    let spec = crate::spec::find_container(&pod, container);
    let mut options = StreamOptions {
        stdin: flag(&query, ["input", "stdin"]),
        stdout: flag(&query, ["output", "stdout"]),
        stderr: flag(&query, ["error", "stderr"]),
        tty: flag(&query, ["tty", "tty"]),
    };
    if !(options.stdin || options.stdout || options.stderr) {
        return answer(400, "you must specify at least 1 of stdin, stdout, stderr");
    }
    let attach = verb == "attach";
    if attach {
        options.tty = spec.and_then(|c| c.tty).unwrap_or(false);
    }
    let start: remote::Starter = Box::new(move || {
        Box::pin(async move {
            let session = match attach {
                true => shared.runtime.attach(&id, options).await,
                false => shared.runtime.exec(&id, command, options).await,
            };
            session.map(process).map_err(|e| e.chain())
        })
    });
    let kind = if attach { remote::Kind::Attach } else { remote::Kind::Exec };
    let StreamOptions { stdin, stdout, stderr, tty } = options;
    let wanted = remote::Options { stdin, stdout, stderr, tty };
    let accepted = remote::accept(&mut request, kind, wanted, start);
    upgraded(&tasks, "exec or attach", &mut request, accepted)
}

/// A runtime's session as the streaming protocols see it.
fn process(session: ExecSession) -> remote::Process {
    let ExecSession { stdin, stdout, stderr, resize, exit } = session;
    let resize: remote::Resize = Box::new(move |remote::Size { width, height }| {
        let to = resize.clone();
        Box::pin(async move { to.send(TerminalSize { width, height }).await.is_ok() })
    });
    let exit = Box::pin(async move { exit.await.map_err(|e| e.chain()) });
    remote::Process { stdin, stdout, stderr, resize, exit }
}

async fn run(shared: &Shared, id: String, cmd: Vec<String>) -> Response {
    match exec::run(shared, &id, cmd, RUN_MAX).await {
        Ok(mut done) => {
            done.stdout.append(&mut done.stderr);
            Response::new(full(done.stdout))
        }
        Err(error) => answer(500, error.to_string()),
    }
}

async fn port_forward(
    shared: Arc<Shared>,
    tasks: &Tasks,
    mut request: Request,
    pod: &Pod,
    query: &Query,
) -> Response {
    let filter = PodSandboxFilter { label_selector: selector(pod), ..PodSandboxFilter::default() };
    let found = match shared.runtime.list_pod_sandboxes(filter).await {
        Ok(found) => found,
        Err(error) => return answer(500, error.chain()),
    };
    let ready = found.into_iter().filter(|s| s.state == PodSandboxState::Ready as i32);
    let Some(sandbox) = ready.max_by_key(|s| s.created_at) else {
        return answer(404, "pod is not running");
    };
    let ports = query.iter().filter(|(n, _)| n == "port" || n == "ports");
    let ports = ports.flat_map(|(_, v)| v.split(',')).filter_map(|p| p.parse().ok()).collect();
    let connect: forward::Connect = Arc::new(move |port| {
        let (shared, id) = (shared.clone(), sandbox.id.clone());
        Box::pin(async move {
            let stream = shared.runtime.port_forward(&id, port).await.map_err(|e| e.chain())?;
            Ok(Box::new(stream) as Box<dyn streams::Duplex>)
        })
    });
    let accepted = forward::accept(&mut request, ports, connect);
    upgraded(tasks, "port-forward", &mut request, accepted)
}

/// The first value of each name, for handlers with many options.
pub(super) fn options(query: &Query) -> HashMap<&str, &str> {
    query.iter().rev().map(|(n, v)| (n.as_str(), v.as_str())).collect()
}
