//! Requests and answers in CBOR.

use api::cbor;
use api::schema::{Schema, Shape};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

use crate::harness::{Answer, World};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const CBOR: &str = "application/cbor";

fn bytes(value: &Value) -> Vec<u8> {
    cbor::encode(Schema::built_in(), &Shape::Any, value)
}

async fn ask(world: &World, method: &str, path: &str, kind: &str, body: Vec<u8>) -> Answer {
    let headers = [("accept", CBOR), ("content-type", kind)];
    world.ask_as(&world.admin, (method, path), &headers, body).await
}

fn read(answer: &Answer) -> Value {
    assert_eq!(answer.headers["content-type"], CBOR);
    assert_eq!(answer.bytes[..3], cbor::SELF_DESCRIBED);
    cbor::decode(&answer.bytes).expect("CBOR")
}

fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": "é"}, "binaryData": {"b": "AQID"}})
}

#[tokio::test]
async fn objects_go_in_and_out() {
    let world = World::new().await;
    let shape = Shape::Struct(Schema::built_in().find("core.v1.ConfigMap").expect("known"));
    // Bytes as bytes, and as the text that JSON has.
    for (name, body) in
        [("a", cbor::encode(Schema::built_in(), &shape, &map("a"))), ("b", bytes(&map("b")))]
    {
        let made = ask(&world, "POST", MAPS, CBOR, body).await;
        assert_eq!(made.code, 201);
        assert_eq!(read(&made)["binaryData"], json!({"b": "AQID"}));
        let plain = world.ask("GET", &format!("{MAPS}/{name}"), &Value::Null).await.json();
        let got = ask(&world, "GET", &format!("{MAPS}/{name}"), "", Vec::new()).await;
        assert_eq!(read(&got), plain);
        let tagged = b"\x41b\xd6\x43\x01\x02\x03";
        assert!(got.bytes.windows(tagged.len()).any(|w| w == tagged), "base64 is told by a tag");
    }
    let list = read(&ask(&world, "GET", MAPS, "", Vec::new()).await);
    assert_eq!(
        (&list["kind"], list["items"].as_array().map(Vec::len)),
        (&json!("ConfigMapList"), Some(2))
    );
    let mut put = read(&ask(&world, "GET", &format!("{MAPS}/a"), "", Vec::new()).await);
    put["data"]["k"] = "new".into();
    let put = ask(&world, "PUT", &format!("{MAPS}/a"), CBOR, bytes(&put)).await;
    assert_eq!(read(&put)["data"]["k"], "new");
    let stale =
        json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": "other"}});
    assert_eq!(ask(&world, "DELETE", &format!("{MAPS}/a"), CBOR, bytes(&stale)).await.code, 409);
    assert_eq!(
        ask(&world, "DELETE", &format!("{MAPS}/a"), CBOR, bytes(&json!({}))).await.code,
        200
    );
}

#[tokio::test]
async fn tables_and_metadata() {
    let world = World::new().await;
    ask(&world, "POST", MAPS, CBOR, bytes(&map("a"))).await;
    let get = async |path: &str, kind: &str| {
        let accept = format!("application/cbor;as={kind};v=v1;g=meta.k8s.io");
        let answer =
            world.ask_as(&world.admin, ("GET", path), &[("accept", accept.as_str())], "").await;
        read(&answer)
    };
    assert_eq!(get(MAPS, "Table").await["rows"][0]["cells"][0], "a");
    assert_eq!(get(MAPS, "PartialObjectMetadataList").await["items"][0]["metadata"]["name"], "a");
    let one = get(&format!("{MAPS}/a"), "PartialObjectMetadata").await;
    assert_eq!((&one["kind"], &one["data"]), (&json!("PartialObjectMetadata"), &Value::Null));
}

#[tokio::test]
async fn watches_are_sequences() {
    let world = World::new().await;
    ask(&world, "POST", MAPS, CBOR, bytes(&map("a"))).await;
    for accept in [CBOR, "application/cbor-seq"] {
        let request = http::Request::get(format!("{MAPS}?watch=true"))
            .header("accept", accept)
            .body(Full::<bytes::Bytes>::default())
            .expect("a request");
        let response = world.server.serve_as(world.admin.clone(), request).await;
        assert_eq!(response.headers()["content-type"], "application/cbor-seq");
        let frame = response.into_body().frame().await.expect("an event").expect("never fails");
        let event = cbor::decode(&frame.into_data().expect("data")).expect("one item");
        assert_eq!(event["type"], "ADDED");
        assert_eq!(event["object"]["metadata"]["name"], "a");
    }
}

#[tokio::test]
async fn failures_are_told_in_the_same_form() {
    let world = World::new().await;
    let missing = ask(&world, "GET", &format!("{MAPS}/none"), "", Vec::new()).await;
    let status = read(&missing);
    assert_eq!(
        (missing.code, &status["kind"], &status["reason"]),
        (404, &json!("Status"), &json!("NotFound"))
    );
    for (body, why) in [
        (
            b"\xa1".to_vec(),
            "the object provided is unrecognized (must be of type ConfigMap): unable to determine group/version/kind: unexpected EOF (a1)",
        ),
        (
            b"\xa2\x41a\x01\x41a\x02".to_vec(),
            "the object provided is unrecognized (must be of type ConfigMap): unable to determine group/version/kind: cbor: found duplicate map key \"a\" at map element index 1 (a2416101416102)",
        ),
    ] {
        let refused = ask(&world, "POST", MAPS, CBOR, body).await;
        assert_eq!((refused.code, &read(&refused)["message"]), (400, &json!(why)));
    }
    let mut odd = map("odd");
    odd["more"] = 1.into();
    let strict =
        ask(&world, "POST", &format!("{MAPS}?fieldValidation=Strict"), CBOR, bytes(&odd)).await;
    let told = read(&strict)["message"].as_str().unwrap_or("").to_owned();
    assert!(told.ends_with("strict decoding error: unknown field \"more\""), "{told}");
    let warned = ask(&world, "POST", MAPS, CBOR, bytes(&odd)).await;
    assert_eq!(warned.headers["warning"], "299 - \"unknown field \\\"more\\\"\"");
    let unknown = ask(&world, "POST", MAPS, "text/plain", bytes(&odd)).await;
    assert_eq!(
        read(&unknown)["message"],
        "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf, application/cbor"
    );
}

#[tokio::test]
async fn applied() {
    let world = World::new().await;
    let apply = "application/apply-patch+cbor";
    let path = format!("{MAPS}/a?fieldManager=m");
    let made = ask(&world, "PATCH", &path, apply, bytes(&map("a"))).await;
    assert_eq!(made.code, 201);
    let owned = &read(&made)["metadata"]["managedFields"][0];
    assert_eq!(
        (&owned["operation"], &owned["fieldsV1"]["f:data"]),
        (&json!("Apply"), &json!({"f:k": {}}))
    );
    let unnamed = ask(&world, "PATCH", &format!("{MAPS}/a"), apply, bytes(&map("a"))).await;
    assert_eq!(read(&unnamed)["details"]["causes"][0]["field"], "fieldManager");
    let other = ask(&world, "PATCH", &path, CBOR, bytes(&map("a"))).await;
    assert_eq!(
        read(&other)["message"],
        "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml, application/apply-patch+cbor"
    );
}

#[tokio::test]
async fn discovery_is_told_in_the_form_that_is_asked_for() {
    let world = World::new().await;
    let get = async |path: &str, accept: &str| {
        world.ask_as(&world.admin, ("GET", path), &[("accept", accept)], "").await
    };
    for (path, kind) in [
        ("/api", "APIVersions"),
        ("/apis", "APIGroupList"),
        ("/apis/apps", "APIGroup"),
        ("/apis/apps/v1", "APIResourceList"),
        ("/api/v1", "APIResourceList"),
    ] {
        let plain = get(path, "application/json").await.json();
        assert_eq!(plain["kind"], kind);
        assert_eq!(read(&get(path, CBOR).await), plain, "{path}");
        let yaml = get(path, "application/yaml").await;
        assert_eq!(yaml.headers["content-type"], "application/yaml");
        let text = String::from_utf8_lossy(&yaml.bytes).into_owned();
        assert!(text.contains(&format!("kind: {kind}\n")), "{text}");
        let binary = get(path, "application/vnd.kubernetes.protobuf,application/json").await;
        assert_eq!(binary.headers["content-type"], "application/vnd.kubernetes.protobuf");
        assert_eq!(binary.bytes[..4], *b"k8s\0");
        let named = kind.as_bytes();
        assert!(binary.bytes.windows(named.len()).any(|part| part == named));
        let other = "application/json;g=apidiscovery.k8s.io;v=v9;as=APIGroupDiscoveryList";
        assert_eq!(get(path, &format!("{other},application/json")).await.code, 200);
        let refused = get(path, "text/html").await;
        assert_eq!(refused.code, 406, "{path}");
        assert_eq!(get(path, "text/html, */*").await.json(), plain, "a browser");
    }
    // Documents of OpenAPI have no form in CBOR, as with upstream.
    assert_eq!(get("/openapi/v2", CBOR).await.code, 406);
}
