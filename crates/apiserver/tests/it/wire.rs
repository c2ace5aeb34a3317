//! The forms answers come in.

use std::io::Read;

use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

use crate::harness::World;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn world_with_maps(count: usize, size: usize) -> World {
    let world = World::new().await;
    for n in 0..count {
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("m{n}")}, "data": {"k": "x".repeat(size)}});
        assert_eq!(world.ask("POST", MAPS, &map).await.code, 201);
    }
    world
}

#[tokio::test]
async fn long_lists_come_in_chunks_and_compressed_when_asked_for() {
    let world = world_with_maps(40, 10_000).await;
    let plain = world.ask("GET", MAPS, &Value::Null).await;
    assert!(plain.headers.get("content-encoding").is_none());
    assert_eq!(plain.json()["items"].as_array().map(Vec::len), Some(40));
    let headers = [("accept-encoding", "gzip")];
    let packed = world.ask_as(&world.admin, ("GET", MAPS), &headers, "").await;
    assert_eq!(packed.headers["content-encoding"], "gzip");
    assert!(packed.bytes.len() * 10 < plain.bytes.len());
    let mut text = Vec::new();
    flate2::read::GzDecoder::new(&packed.bytes[..]).read_to_end(&mut text).expect("gzip");
    assert_eq!(text, plain.bytes);
    let one = format!("{MAPS}/m1");
    let short = world.ask_as(&world.admin, ("GET", &one), &headers, "").await;
    assert!(short.headers.get("content-encoding").is_none());
}

/// Length, then a `WatchEvent` whose object is a sealed message (apimachinery's framer).
#[tokio::test]
async fn a_watch_in_protobuf_has_frames() {
    let world = world_with_maps(1, 3).await;
    let request = http::Request::get(format!("{MAPS}?watch=true"))
        .header("accept", "application/vnd.kubernetes.protobuf;stream=watch")
        .body(Full::<bytes::Bytes>::default())
        .expect("a request");
    let response = world.server.serve_as(world.admin.clone(), request).await;
    let kind = response.headers()["content-type"].clone();
    assert_eq!(kind, "application/vnd.kubernetes.protobuf;stream=watch");
    let frame = response.into_body().frame().await.expect("an event").expect("never fails");
    let bytes = frame.into_data().expect("data");
    let length = u32::from_be_bytes(bytes[..4].try_into().expect("four bytes")) as usize;
    assert_eq!(bytes.len(), 4 + length);
    assert_eq!(&bytes[4..11], b"\x0a\x05ADDED");
    let at = bytes.windows(4).position(|w| w == api::proto::MAGIC).expect("a sealed object");
    let envelope = api::proto::open(&bytes[at..]).expect("an envelope");
    assert_eq!((envelope.api_version.as_str(), envelope.kind.as_str()), ("v1", "ConfigMap"));
}

#[tokio::test]
async fn metadata_lists_are_served_in_protobuf() {
    let world = world_with_maps(2, 3).await;
    let accept =
        "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let answer = world.ask_as(&world.admin, ("GET", MAPS), &[("accept", accept)], "").await;
    let envelope = api::proto::open(&answer.bytes).expect("an envelope");
    assert_eq!(envelope.kind, "PartialObjectMetadataList");
}

#[tokio::test]
async fn what_cannot_be_shown_so_is_refused() {
    let world = world_with_maps(1, 3).await;
    let ask = async |method: &str, path: &str, kind: &str, body: Value| {
        let accept = format!("application/json;as={kind};v=v1;g=meta.k8s.io");
        let headers = [("accept", accept.as_str()), ("content-type", "application/json")];
        let answer = world.ask_as(&world.admin, (method, path), &headers, body.to_string()).await;
        (answer.code, answer.json()["message"].as_str().unwrap_or("").to_owned())
    };
    let one = format!("{MAPS}/m0");
    let list = "PartialObjectMetadataList";
    let (code, why) = ask("GET", &one, list, Value::Null).await;
    assert_eq!(code, 406);
    assert_eq!(
        why,
        "you requested PartialObjectMetadataList, but the requested object is not a list (*core.ConfigMap)"
    );
    assert_eq!(ask("GET", &one, "PartialObjectMetadata", Value::Null).await.0, 200);
    assert_eq!(ask("GET", MAPS, "PartialObjectMetadata", Value::Null).await.0, 406);
    assert_eq!(ask("GET", MAPS, list, Value::Null).await.0, 200);
    let review = json!({"spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}}});
    let reviews = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    assert_eq!(ask("POST", reviews, "Table", review).await.0, 406);
}

#[tokio::test]
async fn an_event_is_one_object_in_two_groups() {
    let world = World::new().await;
    let new = "/apis/events.k8s.io/v1/namespaces/default/events";
    let old = "/api/v1/namespaces/default/events";
    let event = json!({"metadata": {"name": "e"}, "note": "hello", "reason": "r", "action": "a",
        "type": "Normal", "eventTime": "2026-01-01T00:00:00.000000Z",
        "reportingController": "test-controller", "reportingInstance": "i",
        "regarding": {"kind": "Pod", "name": "p", "namespace": "default"}});
    let made = world.ask("POST", new, &event).await;
    assert_eq!(made.code, 201, "{:?}", made.bytes);
    assert_eq!(made.json()["note"], "hello");
    let seen = world.ask("GET", &format!("{old}/e"), &Value::Null).await.json();
    assert_eq!((&seen["message"], &seen["involvedObject"]["name"]), (&json!("hello"), &json!("p")));
    assert_eq!((&seen["apiVersion"], &seen["note"]), (&json!("v1"), &Value::Null));
    for query in [
        format!("{old}?fieldSelector=source=test-controller"),
        format!("{old}?fieldSelector=involvedObject.name=p"),
        format!("{new}?fieldSelector=reportingController=test-controller"),
        format!("{new}?fieldSelector=regarding.name=p"),
    ] {
        let list = world.ask("GET", &query, &Value::Null).await.json();
        let item = &list["items"][0];
        let text = if query.starts_with(old) { &item["message"] } else { &item["note"] };
        assert_eq!(text, "hello", "{query}");
    }
    let refused = world.ask("GET", &format!("{new}?fieldSelector=source=x"), &Value::Null).await;
    assert_eq!(refused.code, 400);
    // Changed in one form, seen in the other.
    let headers = [("content-type", "application/merge-patch+json")];
    let series = json!({"series": {"count": 2, "lastObservedTime": "2026-01-01T00:00:01.000000Z"}});
    let path = format!("{new}/e");
    let done = world.ask_as(&world.admin, ("PATCH", &path), &headers, series.to_string()).await;
    assert_eq!(done.code, 200, "{:?}", done.bytes);
    let seen = world.ask("GET", &format!("{old}/e"), &Value::Null).await.json();
    assert_eq!((&seen["series"]["count"], &seen["message"]), (&json!(2), &json!("hello")));
}
