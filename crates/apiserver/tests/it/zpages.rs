//! `/statusz` and `/flagz` of the API server.

use apiserver::User;
use serde_json::Value;

use crate::harness::{Answer, World};

async fn get(world: &World, user: &User, path: &str, accept: &str) -> Answer {
    world.ask_as(user, ("GET", path), &[("accept", accept)], "").await
}

#[tokio::test]
async fn they_are_for_those_who_watch_over_the_server() {
    let world = World::new().await;
    let monitor = User::new("prometheus", &["system:monitoring", "system:authenticated"]);
    let nobody = User::new("nobody", &["system:authenticated"]);
    for path in ["/statusz", "/flagz"] {
        let page = get(&world, &monitor, path, "*/*").await;
        assert_eq!(
            (page.code, &page.headers["content-type"]),
            (200, &"text/plain; charset=utf-8".parse().expect("a header"))
        );
        let text = String::from_utf8_lossy(&page.bytes).into_owned();
        assert!(text.starts_with(&format!("\nkube-apiserver {}\n", &path[1..])), "{text}");
        assert_eq!(get(&world, &nobody, path, "*/*").await.code, 403, "{path}");
    }
    let index = get(&world, &monitor, "/", "*/*").await;
    assert_eq!(index.code, 403);
    let index = get(&world, &world.admin, "/", "*/*").await.json();
    let listed =
        |path: &str| index["paths"].as_array().is_some_and(|all| all.iter().any(|p| p == path));
    assert!(listed("/statusz") && listed("/flagz"));
}

#[tokio::test]
async fn programs_get_the_kind_that_they_name() {
    let world = World::new().await;
    let accept = "application/json;as=Statusz;v=v1beta1;g=config.k8s.io";
    let page = get(&world, &world.admin, "/statusz", accept).await;
    let tree = page.json();
    assert_eq!((page.code, tree["kind"].as_str()), (200, Some("Statusz")));
    assert_eq!(tree["binaryVersion"], "1.36.2");
    let paths: Vec<&str> =
        tree["paths"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    assert!(
        paths.contains(&"/healthz") && paths.contains(&"/metrics") && !paths.contains(&"/apis")
    );
    let old = accept.replace("v1beta1", "v1alpha1");
    let page = get(&world, &world.admin, "/statusz", &old).await;
    assert!(
        page.headers["warning"]
            .to_str()
            .expect("text")
            .starts_with("299 - \"This version of the statusz")
    );
    let refused = get(&world, &world.admin, "/statusz", "application/json").await;
    let why = "only the following media types are accepted: application/json, application/yaml, text/plain";
    assert_eq!(refused.told(), (406, why.to_owned()));
}

#[tokio::test]
async fn profiles_are_refused_with_a_reason() {
    let world = World::new().await;
    for path in ["/debug/pprof", "/debug/pprof/profile", "/debug/pprof/heap"] {
        let (code, why) = world.ask("GET", path, &Value::Null).await.told();
        assert_eq!(code, 404, "{path}");
        assert!(why.contains("no Go program"), "{why}");
    }
}
