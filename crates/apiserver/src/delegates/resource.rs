//! Resources, built in and custom: finds the row and its strategy, reads the body, runs the verb, and puts the
//! answer into the form that the client asked for.

use std::sync::Arc;

use api::{Object, Status};
use auth::RequestInfo;
use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::BodyExt;

use super::measure::Measure;
use crate::component_status;
use crate::exchange::{Exchange, RequestBody};
use crate::node_proxy;
use crate::parts::Parts;
use resources::body;
use resources::call::Call;
use resources::limits::{Room, Taken, weight};
use resources::metrics::Labels;
use resources::respond::{self, Accept, Body};
use resources::verbs::{Answer, create, delete, get, list, patch, update, watch};
use resources::virtuals;
use strategy::context::RequestContext;
use strategy::offload;
use strategy::query::Query;
use strategy::write_failure::{unreadable, write_failure};

pub(super) async fn serve(server: &Parts, exchange: Exchange) -> Result<Response<Body>, Status> {
    let Exchange { user, info, query, request, audit, .. } = exchange;
    let path = (info.group.as_str(), info.version.as_str(), info.resource.as_str());
    let found = server.resources.find(path, &info.subresource);
    let (row, strategy) = found.ok_or_else(Status::no_such_path)?;
    // A proxied request may have any method.
    let proxied = node_proxy::is_proxied(row.name, row.subresource);
    if info.verb.is_empty() && !proxied {
        return Err(Status::method_not_allowed());
    }
    let agent = header_text(&request, header::USER_AGENT);
    let content_type = header_text(&request, header::CONTENT_TYPE);
    let labels = Labels::of(&info, &query, request.method(), &content_type);
    let measure = Measure::begin(&server.metrics, labels, info.is_long_running());
    let mut context = RequestContext::new(&user, (&info, &query), &agent)?;
    context.audit = audit;
    let call = Call::new(&server.resources, context, (row, strategy));
    let form = Accept::of_failure(request.headers());
    let answered = measure.answered(match proxied {
        true => node_proxy::handle(&server.nodes, &call, request).await,
        false => {
            let span = span(&info, &request, &agent);
            let answered = answer_resource(server, &call, request, &labels);
            traces::within(span.as_ref(), answered).await
        }
    });
    // A refusal has warnings, too.
    let warnings = call.context.take_warnings();
    match answered {
        Err(status) if !warnings.is_empty() => {
            call.context.audit.iter().for_each(|audit| audit.failed(&status));
            let mut response = respond::failure(&status, form);
            respond::add_warnings(&mut response, &warnings);
            Ok(response)
        }
        other => other,
    }
}

/// The span of the verb, if the request has one (`traceFields` of upstream's handlers).
fn span<B>(info: &RequestInfo, request: &Request<B>, agent: &str) -> Option<traces::Span> {
    let name = match info.verb {
        "get" => "Get",
        "list" => "List",
        "create" => "Create",
        "update" => "Update",
        "patch" => "Patch",
        "delete" | "deletecollection" => "Delete",
        _ => return None,
    };
    let mut span = traces::start(name, traces::Kind::Internal)?;
    let (headers, text) =
        (request.headers(), |value: &http::HeaderValue| value.to_str().unwrap_or("").to_owned());
    let header = |name: &str| headers.get(name).map(text).unwrap_or_default();
    let scope = match info {
        info if !info.name.is_empty() || info.verb == "create" => "resource",
        info if !info.namespace.is_empty() => "namespace",
        _ => "cluster",
    };
    for (key, value) in [
        ("accept", header("accept")),
        ("audit-id", header("audit-id")),
        ("protocol", format!("{:?}", request.version())),
        ("url", request.uri().path().to_owned()),
    ] {
        span.set(key, value);
    }
    for (key, value) in [
        ("api-group", info.group.as_str()),
        ("api-version", &info.version),
        ("name", &info.name),
        ("subresource", &info.subresource),
        ("namespace", &info.namespace),
        ("resource", &info.resource),
        ("scope", scope),
        ("user-agent", agent),
        ("verb", info.verb),
    ] {
        span.set(key, value);
    }
    Some(span)
}

fn header_text<B>(request: &Request<B>, name: header::HeaderName) -> String {
    request.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or("").to_owned()
}

async fn answer_resource(
    server: &Parts,
    call: &Call<'_>,
    mut request: Request<RequestBody>,
    labels: &Labels<'_>,
) -> Result<Response<Body>, Status> {
    let accept = Accept::of(request.headers())?;
    call.strategy.check_served()?;
    if let Some(warning) = call.strategy.deprecation(call.row) {
        call.context.warn(warning);
        server.metrics.deprecated(labels);
    }
    let content_type = header_text(&request, header::CONTENT_TYPE);
    let row = call.row;
    let verb = call.context.info.verb;
    // A collection path given with a name, or the reverse, allows other verbs.
    let served = row.allows(verb)
        || (verb == "create" && !row.subresource.is_empty() && row.allows("create"));
    if !served
        || (verb == "create" && row.subresource.is_empty() && !call.context.info.name.is_empty())
    {
        return Err(Status::method_not_allowed());
    }
    if row.namespaced && call.context.info.namespace.is_empty() && !matches!(verb, "list" | "watch")
    {
        return Err(Status::method_not_allowed());
    }
    if verb != "watch" {
        accept.check(call.main_row(), matches!(verb, "list" | "deletecollection"))?;
    }
    let handshake = (verb == "watch" && streams::is_websocket(request.headers()))
        .then(|| streams::messages::Handshake::of(&mut request));
    let room = &server.in_flight.room;
    let (bytes, is_large, _taken) = match verb {
        "get" | "list" | "watch" => (Bytes::new(), false, None),
        _ => {
            let bytes = body::collect(request.into_body(), room).await?;
            let (is_large, taken) = room_for(room, call, &content_type, &bytes).await?;
            (bytes, is_large, taken)
        }
    };
    let answered =
        offload::run(is_large, Box::pin(answer(server, call, verb, (bytes, &content_type))))
            .await?;
    drop(_taken);
    let mut answer = converted(call, answered).await?;
    if let Answer::Watch(watching) = &mut answer {
        watching.sent = Some(server.metrics.watch(labels));
    }
    let include = call.context.query.get("includeObject").unwrap_or("Metadata");
    let shown = respond::Shown::new(row, call.strategy.clone());
    let answer = match (answer, handshake) {
        (Answer::Watch(watching), Some(handshake)) => {
            let (framing, messages) =
                respond::messages(watching, accept, shown, include.to_owned());
            return node_proxy::switched(&server.closing, handshake.events(framing, messages));
        }
        (answer, _) => answer,
    };
    tell_answer(call, &answer, accept, &shown, include).await;
    let trees = respond::trees_of(&answer, accept, &shown);
    let _taken = if trees > 0 { room.trees_up_to(weight::of_stored(trees)).await? } else { None };
    let mut response =
        offload::offload_large(trees, || respond::answer(answer, accept, shown, include));
    respond::add_warnings(&mut response, &call.context.take_warnings());
    Ok(response)
}

/// Tells the audit what the client is answered, as JSON whatever the client asked for.
async fn tell_answer(
    call: &Call<'_>,
    answer: &Answer,
    accept: Accept,
    shown: &respond::Shown,
    include: &str,
) {
    let wanted = |audit: &&Arc<audit::Record>| audit.level() >= audit::Level::RequestResponse;
    let audit = call.context.audit.as_ref().filter(wanted);
    let Some((audit, answer)) = audit.zip(answer.copy()) else { return };
    let accept = Accept { encoding: respond::Encoding::Json, gzip: false, ..accept };
    let body = respond::answer(answer, accept, shown.clone(), include).into_body();
    let Ok(collected) = body.collect().await;
    if let Ok(object) = serde_json::from_slice(&collected.to_bytes()) {
        audit.response_object(&object);
    }
}

/// Waits for room for a change, and tells whether the change is large. The object may have grown meanwhile:
/// then more room is needed. A deletion is never refused for its size, since it makes room.
async fn room_for<'r>(
    room: &'r Room,
    call: &Call<'_>,
    content_type: &str,
    bytes: &[u8],
) -> Result<(bool, Taken<'r>), Status> {
    let mut stored = call.stored();
    loop {
        let json = stored.as_deref().map_or(&b""[..], |object| object.json());
        let weight = weight::of_change(call.context.info.verb, content_type, bytes, json);
        let taken = match call.context.info.verb {
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
    match answer {
        Answer::Object { code, object } if call.strategy.selects_in_version() => {
            let tree = call.strategy.read(&object).await?;
            let selectable = call.main_row().selectable;
            let object = Arc::new(Object::new(&tree, object.revision(), selectable));
            Ok(Answer::Object { code, object })
        }
        answer => Ok(answer),
    }
}

async fn answer(
    server: &Parts,
    call: &Call<'_>,
    verb: &str,
    (bytes, content_type): (Bytes, &str),
) -> Result<Answer, Status> {
    if let Some(scaled) = virtuals::scale(call, verb, &bytes, content_type).await {
        return scaled;
    }
    if must_be_fresh(verb, call.context.query, call.resources.store.revision()) {
        let row = call.row;
        let shown = call.resources.store.catch_up().await;
        shown.map_err(|e| write_failure(e, row, &call.context.info.name))?;
    }
    readable(call, verb)?;
    match verb {
        "get" if call.row.name == "componentstatuses" => component_status::get(server, call).await,
        "list" if call.row.name == "componentstatuses" => {
            component_status::list(server, call).await
        }
        "get" => get::get(call),
        "list" => list::list(call).await,
        "watch" => watch::watch(call),
        "create" => match virtuals::create(&server.identity, call, &bytes, content_type).await {
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

/// Refuses requests for stored values that cannot be decrypted, with the reason.
fn readable(call: &Call<'_>, verb: &str) -> Result<(), Status> {
    let row = call.main_row();
    if row.prefix.is_empty() {
        return Ok(());
    }
    let collection = call.resources.collection(row);
    let info = &call.context.info;
    if !info.name.is_empty() {
        let why = collection.unreadable(&call.key());
        return why.map_or(Ok(()), |why| Err(unreadable(&why)));
    }
    if verb == "create" {
        return Ok(());
    }
    let within =
        if info.namespace.is_empty() { String::new() } else { format!("{}/", info.namespace) };
    match collection.first_unreadable(&within) {
        None => Ok(()),
        Some((key, why)) => {
            let key = format!("{}{key}", row.prefix);
            Err(unreadable(&format!("unable to transform key {key:?}: {why}")))
        }
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
