//! Lists in pages: one revision throughout, told when it is no longer known.

use serde_json::{Value, json};

use crate::harness::World;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// More than the store remembers of one collection's former states.
const FORGOTTEN_AFTER: usize = 70;

async fn make(world: &World, name: &str) {
    let object = json!({"metadata": {"name": name}});
    assert_eq!(world.ask("POST", MAPS, &object).await.code, 201);
}

async fn page(world: &World, token: &str) -> (u16, Value) {
    let path = format!("{MAPS}?limit=2&labelSelector=!big&continue={token}");
    let answer = world.ask("GET", &path, &Value::Null).await;
    (answer.code, answer.json())
}

fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().into_iter().flatten();
    items.filter_map(|item| item["metadata"]["name"].as_str()).collect()
}

#[tokio::test]
async fn pages_are_of_one_revision_and_can_go_on_when_it_is_forgotten() {
    let world = World::new().await;
    for name in ["a", "b", "c", "d"] {
        make(&world, name).await;
    }
    let (_, first) = page(&world, "").await;
    assert_eq!(names(&first), ["a", "b"]);
    let token = first["metadata"]["continue"].as_str().expect("a token").to_owned();

    make(&world, "c2").await;
    let deleted = world.ask("DELETE", &format!("{MAPS}/d"), &Value::Null).await;
    assert_eq!(deleted.code, 200);
    let (_, second) = page(&world, &token).await;
    assert_eq!(names(&second).first(), Some(&"c"), "as of the first page");
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    assert!(!names(&second).contains(&"c2"));

    let big = json!({"metadata": {"name": "big", "labels": {"big": ""}}});
    assert_eq!(world.ask("POST", MAPS, &big).await.code, 201);
    for round in 0..FORGOTTEN_AFTER {
        let mut big = big.clone();
        big["data"]["fill"] = format!("{round} {}", "x".repeat(400_000)).into();
        assert_eq!(world.ask("PUT", &format!("{MAPS}/big"), &big).await.code, 200);
    }
    let (code, gone) = page(&world, &token).await;
    assert_eq!((code, &gone["reason"]), (410, &json!("Expired")), "{gone}");
    let resumed = gone["metadata"]["continue"].as_str().expect("a token to go on with");
    let (code, rest) = page(&world, resumed).await;
    assert_eq!(code, 200);
    assert_eq!(names(&rest)[..2], ["c", "c2"], "as of now");

    let revision = &first["metadata"]["resourceVersion"].as_str().expect("a revision");
    let exact = format!("{MAPS}?resourceVersion={revision}&resourceVersionMatch=Exact");
    let gone = world.ask("GET", &exact, &Value::Null).await;
    assert_eq!(gone.code, 410);
    assert_eq!(gone.json()["message"], "The resourceVersion for the provided list is too old.");
    assert_eq!(gone.json()["metadata"], json!({}));
}
