//! Everything that is no resource: health, version, discovery, OpenAPI.

use api::Status;
use http::{Response, header};
use telemetry::zpages;

use super::measure::Measure;
use super::metrics;
use crate::aggregate::Served;
use crate::exchange::Exchange;
use crate::health;
use crate::openapi;
use crate::parts::Parts;
use resources::metrics::Labels;
use resources::respond::{self, Accept, Body};

/// Everything that is no resource: health, version, discovery, OpenAPI.
pub(super) async fn serve(server: &Parts, exchange: Exchange) -> Result<Response<Body>, Status> {
    let Exchange { info, query, request, .. } = exchange;
    let headers = request.headers();
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or("");
    let json = |value: &serde_json::Value| respond::json_bytes(200, value.to_string());
    let told = |value: &serde_json::Value| {
        Ok::<_, Status>(respond::value(200, Accept::of_discovery(headers)?, value))
    };
    let rows = server.resources.rows();
    let extensions = server.aggregator.served();
    let parts: Vec<&str> = info.path.trim_matches('/').split('/').collect();
    Ok(match parts.as_slice() {
        [endpoint @ ("healthz" | "livez" | "readyz"), check @ ..] => {
            let labels = Labels::of(&info, &query, request.method(), "");
            let measure = Measure::begin(&server.metrics, labels, false);
            measure.answered(health::answer(server, endpoint, &check.join("/"), &query).await)?
        }
        ["metrics"] => metrics::answer(server),
        ["metrics", "slis"] => {
            respond::with_type(200, telemetry::CONTENT_TYPE, server.checked.text())
        }
        ["debug", what @ ..] => debug(server, what)?,
        [what @ ("statusz" | "flagz")] => zpage(server, what, accept),
        ["version"] => json(&discovery::version()),
        ["api"] | ["apis"] => match aggregation(accept) {
            Some(version) => {
                let core = parts == ["api"];
                let make = || Ok(discovery::aggregated(&rows, core, version).to_string().into());
                let name = format!("{} {version}", parts[0]);
                let installed = server.resources.customs.installed();
                let mut document = server.documents.get(&installed, &name, make).await?;
                if !core && !extensions.is_empty() {
                    document = with_extensions(&document, &extensions)?;
                }
                respond::shared(200, aggregated_type(version), document)
            }
            None if parts == ["api"] => {
                let (ip, port) = server.advertise;
                told(&discovery::versions(&std::net::SocketAddr::new(ip, port).to_string()))?
            }
            None => {
                let mut list = discovery::group_list(&rows);
                extensions.add_groups(&mut list);
                told(&list)?
            }
        },
        ["api", version] => {
            told(&discovery::resource_list(&rows, "", version).ok_or_else(Status::no_such_path)?)?
        }
        ["apis", group] => {
            let own = discovery::group(&rows, group);
            told(&extensions.with_group(own, group).ok_or_else(Status::no_such_path)?)?
        }
        ["apis", group, version] => {
            let list = discovery::resource_list(&rows, group, version);
            told(&list.ok_or_else(Status::no_such_path)?)?
        }
        ["openapi", "v2"] => openapi::v2(server, headers).await?,
        ["openapi", "v3"] => openapi::v3_index(server).await?,
        ["openapi", "v3", path @ ..] => {
            openapi::v3(server, &path.join("/"), &query, headers).await?
        }
        ["openid", "v1", "jwks"] => json(&server.identity.tokens.jwks()),
        [".well-known", "openid-configuration"] => json(&openid(server)),
        [""] => {
            json(&serde_json::json!({"paths": crate::paths::all(&rows, health::paths(server))}))
        }
        _ => return Err(Status::no_such_path()),
    })
}

/// Paths below `/debug`. Profiles are of Go's runtime, which is not here.
fn debug(server: &Parts, what: &[&str]) -> Result<Response<Body>, Status> {
    let text = match what {
        ["pprof", ..] => {
            let why = "the server has no profiles at /debug/pprof: it is no Go program; use perf(1) on its process";
            return Err(Status::failure(404, "NotFound", why));
        }
        ["api_priority_and_fairness", what] if server.limits.fairness => match *what {
            "dump_priority_levels" => server.flow_control.dump_levels(),
            "dump_queues" => server.flow_control.dump_queues(),
            _ => return Err(Status::no_such_path()),
        },
        _ => return Err(Status::no_such_path()),
    };
    Ok(respond::with_type(200, "text/plain; charset=utf-8", text))
}

/// `/statusz` and `/flagz`.
fn zpage(server: &Parts, what: &str, accept: &str) -> Response<Body> {
    let page = match what {
        "flagz" => zpages::flagz(&server.component, accept),
        _ => {
            let all = crate::paths::all(&server.resources.rows(), health::paths(server));
            let others = all.iter().map(String::as_str).filter(|path| *path != "/statusz");
            zpages::statusz(&server.component, accept, others, discovery::VERSIONS)
        }
    };
    let mut response = respond::with_type(page.code, page.content_type, page.body);
    if let Some(warning) = page.warning.and_then(|text| text.parse().ok()) {
        response.headers_mut().insert(header::WARNING, warning);
    }
    response
}

/// Aggregated discovery with what extension servers serve.
fn with_extensions(document: &[u8], extensions: &Served) -> Result<bytes::Bytes, Status> {
    let tree: Result<serde_json::Value, _> = serde_json::from_slice(document);
    let mut tree = tree.map_err(|e| Status::internal(e.to_string()))?;
    extensions.add_aggregated(&mut tree);
    Ok(tree.to_string().into())
}

fn openid(server: &Parts) -> serde_json::Value {
    let (ip, port) = server.advertise;
    let address = std::net::SocketAddr::new(ip, port);
    serde_json::json!({
        "issuer": server.identity.tokens.issuer(),
        "jwks_uri": format!("https://{address}/openid/v1/jwks"),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    })
}

/// The aggregated form's version, when the client prefers it.
fn aggregation(accept: &str) -> Option<&'static str> {
    accept.split(',').map(str::trim).find_map(|alternative| {
        if !alternative.starts_with("application/json")
            || !alternative.contains("as=APIGroupDiscoveryList")
        {
            return None;
        }
        if alternative.contains("v=v2beta1") { Some("v2beta1") } else { Some("v2") }
    })
}

fn aggregated_type(version: &str) -> &'static str {
    match version {
        "v2beta1" => "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
        _ => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
    }
}
