//! From an HTTP request to its answer: the filters, then the handler that the path names.

use std::sync::Arc;

use api::{Object, Status};
use auth::{Attributes, RequestInfo, User, decode_path, impersonation};
use bytes::Bytes;
use http::{Request, Response, header};

use crate::call::Call;
use crate::limits::weight;
use crate::query::Query;
use crate::respond::{self, Accept, Body};
use crate::server::{Inner, Server};
use crate::verbs::{Answer, create, delete, get, list, patch, update, watch, write_failure};
use crate::{body, discovery, health, limits, node_proxy, offload, openapi, virtuals};

impl Server {
    /// Answers a request of somebody whose certificate, if any, was verified by TLS.
    pub async fn serve<B>(&self, request: Request<B>, certificate: Option<&[u8]>) -> Response<Body>
    where
        B: hyper::body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: std::error::Error + Send + Sync + 'static,
    {
        let form = Accept::of_failure(request.headers());
        let (mut parts, body) = request.into_parts();
        let authenticator = &self.inner.config.authenticator;
        let user = authenticator.request(&*self.inner.objects, &mut parts.headers, certificate);
        let admitted = user.and_then(|user| {
            self.inner.in_flight.check_memory(&user)?;
            Ok(user)
        });
        let answered = match admitted {
            Ok(user) => {
                let response = self.serve_as(user, Request::from_parts(parts, body)).await;
                self.with_room(response).await
            }
            Err(status) => Err(status),
        };
        answered.unwrap_or_else(|status| respond::failure(&status, form))
    }

    /// The same answer, once there is room to keep its bytes until the client has read them.
    async fn with_room(&self, mut response: Response<Body>) -> Result<Response<Body>, Status> {
        let own = response.extensions().get::<respond::SharedBytes>().is_none();
        let size = hyper::body::Body::size_hint(response.body()).exact().filter(|_| own);
        let size = usize::try_from(size.unwrap_or(0)).unwrap_or(usize::MAX);
        if let Some(permit) = self.inner.in_flight.room.unsent(size).await? {
            let held: respond::Unsent = Arc::new(permit);
            response.extensions_mut().insert(held);
        }
        Ok(response)
    }

    /// Answers a request of a known user.
    pub async fn serve_as<B>(&self, user: User, mut request: Request<B>) -> Response<Body>
    where
        B: hyper::body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: std::error::Error + Send + Sync + 'static,
    {
        let query = Query::parse(request.uri().query().unwrap_or(""));
        let form = Accept::of_failure(request.headers());
        let Some(path) = decode_path(request.uri().path()) else {
            return respond::failure(&Status::bad_request("invalid URL escape"), form);
        };
        let info = RequestInfo::parse(request.method(), &path, query.flag("watch"));
        let acting = impersonate(&self.inner, user, (&info, &query), request.headers_mut());
        let answered = match acting {
            Ok(user) if info.is_long_running() => {
                let answered = dispatch(&self.inner, &user, (&info, &query), request).await;
                answered.map(|mut response| {
                    response.extensions_mut().insert(respond::Streaming);
                    respond::until(response, self.inner.closing.clone())
                })
            }
            Ok(user) => within_limits(&self.inner, &user, (&info, &query), request).await,
            Err(status) => Err(status),
        };
        answered.unwrap_or_else(|status| respond::failure(&status, form))
    }
}

/// Answers a request that is no stream: one of a limited number at a time, in limited time.
async fn within_limits<B>(
    server: &Inner,
    user: &User,
    (info, query): (&RequestInfo, &Query),
    request: Request<B>,
) -> Result<Response<Body>, Status>
where
    B: hyper::body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    let deadline = server.config.limits.deadline(query)?;
    let work = async {
        let _place = server.in_flight.enter(user, info).await?;
        dispatch(server, user, (info, query), request).await
    };
    tokio::time::timeout(deadline, work).await.unwrap_or_else(|_| Err(limits::timed_out()))
}

/// Whoever the request goes on as: the requester, or whom its headers name.
fn impersonate(
    server: &Inner,
    user: User,
    (info, query): (&RequestInfo, &Query),
    headers: &mut http::HeaderMap,
) -> Result<User, Status> {
    let Some(wanted) = impersonation::take(headers)? else { return Ok(user) };
    let fields = query.field_selector().unwrap_or_default();
    let request = Attributes::of(info).selecting(&fields);
    let check = |user: &User, asked: &Attributes<'_>| server.authorizer.require(user, asked);
    impersonation::become_user(&user, &wanted, &request, &check)
}

async fn dispatch<B>(
    server: &Inner,
    user: &User,
    (info, query): (&RequestInfo, &Query),
    request: Request<B>,
) -> Result<Response<Body>, Status>
where
    B: hyper::body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    // A selector that does not parse is refused later.
    let fields = query.field_selector().unwrap_or_default();
    server
        .authorizer
        .check(user, &Attributes::of(info).selecting(&fields))
        .map_err(|why| Status::forbidden(&info.group, &info.resource, &info.name, &why))?;
    if !info.is_resource {
        return plain_path(server, (info, query), request.headers()).await;
    }
    let found = server.find((&info.group, &info.version, &info.resource), &info.subresource);
    let found = found.ok_or_else(Status::no_such_path)?;
    // What is proxied may be asked by any method.
    let proxied = node_proxy::is_proxied(found.0.name, found.0.subresource);
    if info.verb.is_empty() && !proxied {
        return Err(Status::method_not_allowed());
    }
    let agent = header_text(&request, header::USER_AGENT);
    let call = Call::new(server, user, (info, query), found, &agent)?;
    if proxied {
        return node_proxy::handle(&call, request).await;
    }
    resource(&call, request).await
}

fn header_text<B>(request: &Request<B>, name: header::HeaderName) -> String {
    request.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or("").to_owned()
}

async fn resource<B>(call: &Call<'_>, mut request: Request<B>) -> Result<Response<Body>, Status>
where
    B: hyper::body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    let accept = Accept::of(request.headers())?;
    if call.custom.as_ref().is_some_and(|custom| custom.is_broken()) {
        return Err(Status::internal("error resolving resource"));
    }
    if let Some(warning) = call.custom.as_ref().and_then(|c| c.version().warning.as_ref()) {
        call.warn(warning);
    }
    if let Some(warning) = validation::deprecation(call.row).filter(|_| call.custom.is_none()) {
        call.warn(warning);
    }
    let content_type = header_text(&request, header::CONTENT_TYPE);
    let row = call.row;
    let verb = call.info.verb;
    // A collection path given with a name, or the reverse, allows other verbs.
    let served = row.allows(verb)
        || (verb == "create" && !row.subresource.is_empty() && row.allows("create"));
    if !served || (verb == "create" && row.subresource.is_empty() && !call.info.name.is_empty()) {
        return Err(Status::method_not_allowed());
    }
    if row.namespaced && call.info.namespace.is_empty() && !matches!(verb, "list" | "watch") {
        return Err(Status::method_not_allowed());
    }
    if verb != "watch" {
        accept.check(call.main_row(), matches!(verb, "list" | "deletecollection"))?;
    }
    let handshake = (verb == "watch" && streams::is_websocket(request.headers()))
        .then(|| streams::messages::Handshake::of(&mut request));
    let room = &call.server.in_flight.room;
    let (bytes, is_large, _taken) = match verb {
        "get" | "list" | "watch" => (Bytes::new(), false, None),
        _ => {
            let bytes = body::collect(request.into_body(), room).await?;
            let (is_large, taken) = room_for(call, &content_type, &bytes).await?;
            (bytes, is_large, taken)
        }
    };
    let answered = offload::run(is_large, answer(call, verb, bytes, &content_type)).await?;
    drop(_taken);
    let answer = converted(call, answered).await?;
    let include = call.query.get("includeObject").unwrap_or("Metadata");
    let shown = respond::Shown::new(row, call.custom.clone());
    let answer = match (answer, handshake) {
        (Answer::Watch(watching), Some(handshake)) => {
            let (framing, messages) =
                respond::messages(watching, accept, shown, include.to_owned());
            return node_proxy::switched(call.server, handshake.events(framing, messages));
        }
        (answer, _) => answer,
    };
    let trees = respond::trees_of(&answer, accept, &shown);
    let _taken = if trees > 0 { room.trees_up_to(weight::of_stored(trees)).await? } else { None };
    let mut response =
        offload::offload_large(trees, || respond::answer(answer, accept, shown, include));
    respond::add_warnings(&mut response, &call.take_warnings());
    Ok(response)
}

/// Waits for room for a change, and tells whether the change is large. The object may have grown meanwhile:
/// then more room is needed. A deletion is never refused for its size, since it makes room.
async fn room_for<'a>(
    call: &Call<'a>,
    content_type: &str,
    bytes: &[u8],
) -> Result<(bool, limits::Taken<'a>), Status> {
    let mut stored = call.stored();
    loop {
        let json = stored.as_deref().map_or(&b""[..], |object| object.json());
        let weight = weight::of_change(call.info.verb, content_type, bytes, json);
        let room = &call.server.in_flight.room;
        let taken = match call.info.verb {
            "delete" => room.trees_up_to(weight).await?,
            _ => room.trees(weight).await?,
        };
        let now = call.stored();
        let size = |object: &Option<Arc<Object>>| object.as_ref().map_or(0, |o| o.json().len());
        if size(&now) <= size(&stored) {
            return Ok((offload::is_large(bytes.len() + json.len(), weight), taken));
        }
        stored = now;
    }
}

/// A stored object in the form of the request's version, where that is more than another name.
async fn converted(call: &Call<'_>, answer: Answer) -> Result<Answer, Status> {
    match (answer, call.custom.as_ref().filter(|custom| custom.rebuilt)) {
        (Answer::Object { code, object }, Some(custom)) => {
            Ok(Answer::Object { code, object: custom.object(&object).await? })
        }
        (answer, _) => Ok(answer),
    }
}

async fn answer(
    call: &Call<'_>,
    verb: &str,
    bytes: Bytes,
    content_type: &str,
) -> Result<Answer, Status> {
    if let Some(scaled) = virtuals::scale(call, verb, &bytes, content_type).await {
        return scaled;
    }
    if must_be_fresh(verb, call.query, call.server.store.revision()) {
        let row = call.row;
        let shown = call.server.store.catch_up().await;
        shown.map_err(|e| write_failure(e, row, &call.info.name))?;
    }
    match verb {
        "get" if call.row.name == "componentstatuses" => Err(call.not_found()),
        "list" if call.row.name == "componentstatuses" => Ok(component_statuses()),
        "get" => get::get(call),
        "list" => list::list(call).await,
        "watch" => watch::watch(call),
        "create" => match virtuals::create(call, &bytes, content_type).await {
            Some(answered) => answered,
            None => create::create(call, bytes, content_type).await,
        },
        "update" => update::update(call, bytes, content_type).await,
        "patch" => patch::patch(call, bytes, content_type).await,
        "delete" => delete::delete(call, bytes, content_type).await,
        "deletecollection" => delete::delete_collection(call, bytes, content_type).await,
        _ => Err(Status::method_not_allowed()),
    }
}

/// Whether the answer must show what other servers of the same store have acknowledged: reads that
/// name no revision or one that is not here yet, and changes, which are decided from the present
/// state. A creation is not; the store refuses it when the name is taken.
fn must_be_fresh(verb: &str, query: &Query, now: u64) -> bool {
    let given = |key| query.get(key).is_some_and(|value| !value.is_empty());
    let ahead = || {
        let asked = query.get("resourceVersion").and_then(|text| text.parse::<u64>().ok());
        asked.is_some_and(|asked| asked > now)
    };
    match verb {
        "get" | "list" => !given("resourceVersion") && !given("continue") || ahead(),
        // A watch that begins with all there is.
        "watch" => given("sendInitialEvents") && !given("resourceVersion") || ahead(),
        "update" | "patch" | "delete" | "deletecollection" => true,
        _ => false,
    }
}

/// Deprecated since v1.19: an empty list is a valid answer of a server whose parts are itself.
fn component_statuses() -> Answer {
    let value = serde_json::json!({"kind": "ComponentStatusList", "apiVersion": "v1", "metadata": {}, "items": []});
    Answer::Tree { code: 200, value }
}

/// Everything that is no resource: health, version, discovery, OpenAPI.
async fn plain_path(
    server: &Inner,
    (info, query): (&RequestInfo, &Query),
    headers: &http::HeaderMap,
) -> Result<Response<Body>, Status> {
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or("");
    let json = |value: &serde_json::Value| respond::json_bytes(200, value.to_string());
    let rows = server.rows();
    let parts: Vec<&str> = info.path.trim_matches('/').split('/').collect();
    Ok(match parts.as_slice() {
        [endpoint @ ("healthz" | "livez" | "readyz"), check @ ..] => {
            health::answer(server, endpoint, &check.join("/"), query).await?
        }
        ["version"] => json(&discovery::version()),
        ["api"] | ["apis"] => match aggregation(accept) {
            Some(version) => {
                let core = parts == ["api"];
                let make = || Ok(discovery::aggregated(&rows, core, version).to_string().into());
                let name = format!("{} {version}", parts[0]);
                let installed = server.customs.installed();
                let document = server.documents.get(&installed, &name, make).await?;
                respond::shared(200, aggregated_type(version), document)
            }
            None if parts == ["api"] => {
                let (ip, port) = server.config.advertise;
                json(&discovery::versions(&std::net::SocketAddr::new(ip, port).to_string()))
            }
            None => json(&discovery::group_list(&rows)),
        },
        ["api", version] => {
            json(&discovery::resource_list(&rows, "", version).ok_or_else(Status::no_such_path)?)
        }
        ["apis", group] => json(&discovery::group(&rows, group).ok_or_else(Status::no_such_path)?),
        ["apis", group, version] => json(
            &discovery::resource_list(&rows, group, version).ok_or_else(Status::no_such_path)?,
        ),
        ["openapi", "v2"] => openapi::v2(server, headers).await?,
        ["openapi", "v3"] => openapi::v3_index(server).await?,
        ["openapi", "v3", path @ ..] => {
            openapi::v3(server, &path.join("/"), query, headers).await?
        }
        ["openid", "v1", "jwks"] => json(&server.config.tokens.jwks()),
        [".well-known", "openid-configuration"] => json(&openid(server)),
        [""] => json(&serde_json::json!({"paths": crate::paths::all(&rows)})),
        _ => return Err(Status::no_such_path()),
    })
}

fn openid(server: &Inner) -> serde_json::Value {
    let (ip, port) = server.config.advertise;
    let address = std::net::SocketAddr::new(ip, port);
    serde_json::json!({
        "issuer": server.config.tokens.issuer(),
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
