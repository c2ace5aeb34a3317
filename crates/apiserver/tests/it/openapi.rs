//! The documents are upstream's but for wording.

use serde_json::{Map, Value};

use crate::harness::World;

static ORIGINAL: &str = include_str!("openapi.txt");

/// Without descriptions, and with `required` in alphabetical order: its order says nothing.
fn without_wording(value: Value, properties: bool) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map
                .into_iter()
                .filter(|(key, value)| properties || key != "description" || !value.is_string());
            let shown = kept.map(|(key, value)| {
                let value = match value {
                    Value::Array(mut names) if key == "required" && !properties => {
                        names.sort_by_key(Value::to_string);
                        Value::Array(names)
                    }
                    other => without_wording(other, key == "properties"),
                };
                (key, value)
            });
            Value::Object(shown.collect::<Map<_, _>>())
        }
        Value::Array(list) => list.into_iter().map(|item| without_wording(item, false)).collect(),
        other => other,
    }
}

#[tokio::test]
async fn documents_are_the_originals_but_for_wording() {
    let world = World::new().await;
    let mut different = Vec::new();
    for line in ORIGINAL.lines().filter(|line| !line.starts_with('#')) {
        let (path, digest) = line.split_once(' ').expect("a path and a digest");
        let answer = world.ask("GET", &format!("/openapi/v3/{path}"), &Value::Null).await;
        assert_eq!(answer.code, 200, "{path}");
        let text = without_wording(answer.json(), false).to_string();
        let found: String =
            pki::sha256(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        if found != digest {
            different.push(path);
        }
    }
    assert!(different.is_empty(), "not the original's: {different:?}");
}

#[tokio::test]
async fn every_document_of_the_index_is_there_and_refers_to_what_it_has() {
    let world = World::new().await;
    let index = world.ask("GET", "/openapi/v3", &Value::Null).await.json();
    for (path, entry) in index["paths"].as_object().expect("paths") {
        let url = entry["serverRelativeURL"].as_str().expect("a URL");
        let answer = world.ask("GET", url, &Value::Null).await;
        assert_eq!(answer.code, 200, "{path}");
        let document = answer.json();
        check_references(&document, &document, "#/components/schemas/", "/components/schemas/");
    }
    let document = world.ask("GET", "/openapi/v2", &Value::Null).await.json();
    check_references(&document, &document, "#/definitions/", "/definitions/");
}

fn check_references(document: &Value, at: &Value, root: &str, place: &str) {
    match at {
        Value::Object(map) => {
            if let Some(Value::String(reference)) = map.get("$ref") {
                let name = reference.strip_prefix(root).expect(reference);
                assert!(document.pointer(&format!("{place}{name}")).is_some(), "{reference}");
            }
            map.values().for_each(|below| check_references(document, below, root, place));
        }
        Value::Array(list) => {
            list.iter().for_each(|below| check_references(document, below, root, place));
        }
        _ => {}
    }
}

#[tokio::test]
async fn documents_are_cached_by_their_hash() {
    let world = World::new().await;
    let index = world.ask("GET", "/openapi/v3", &Value::Null).await.json();
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().expect("a URL");
    let (path, hash) = url.split_once("?hash=").expect("a hash");

    let ask = async |path: &str, tag: &str| {
        let headers = [("if-none-match", tag)];
        world.ask_as(&world.admin, ("GET", path), &headers, "").await
    };
    let whole = ask(url, "\"other\"").await;
    assert_eq!(
        (whole.code, &whole.headers["etag"]),
        (200, &format!("{hash:?}").parse().expect("a header"))
    );
    assert_eq!(whole.headers["cache-control"], "public, immutable");
    let known = ask(path, &format!("{hash:?}")).await;
    assert_eq!((known.code, known.bytes.len()), (304, 0));
    let moved = ask(&format!("{path}?hash=OLD"), "").await;
    assert_eq!((moved.code, &moved.headers["location"]), (301, &url.parse().expect("a header")));

    let whole = ask("/openapi/v2", "").await;
    let tag = whole.headers["etag"].to_str().expect("text").to_owned();
    assert_eq!(ask("/openapi/v2", &tag).await.code, 304);
}
