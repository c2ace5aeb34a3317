//! What webhooks answer that is not simply yes, and what becomes of it.

use serde_json::{Value, json};

use super::{
    CONFIG_MAPS, GROUP, config_map, create, mutate, refused, register, validate, webhook, with,
    world,
};

async fn answer_of(path: &str, is_mutating: bool) -> (u16, String) {
    let (world, hook) = world().await;
    let webhook = webhook(&hook, path, &["CREATE"], "/v1/configmaps");
    match is_mutating {
        true => mutate(&world, &[webhook]).await,
        false => validate(&world, webhook).await,
    }
    create(&world, CONFIG_MAPS, &config_map("a", json!({"a": "b"}))).await.told()
}

#[tokio::test]
async fn refusals_keep_code_and_reason() {
    let (code, message) = answer_of("/teapot", false).await;
    assert_eq!(
        (code, message.as_str()),
        (418, "admission webhook \"teapot.example.com\" denied the request: short and stout")
    );
    let (code, message) = answer_of("/unexplained", false).await;
    assert_eq!(
        (code, message.as_str()),
        (
            400,
            "admission webhook \"unexplained.example.com\" denied the request without explanation"
        )
    );
}

#[tokio::test]
async fn answers_that_are_none_are_failures() {
    for (path, is_mutating, why) in [
        ("/no-response", false, "received invalid webhook response: webhook response was absent"),
        (
            "/broken",
            false,
            "failed to call webhook: an error on the server (\"broken\") has prevented the request from succeeding",
        ),
        ("/stage-1", false, "/stage-1"),
        (
            "/bad-patch",
            true,
            "received undecodable patch in webhook response: json: cannot unmarshal",
        ),
        (
            "/patch-without-type",
            true,
            "received invalid webhook response: webhook returned response.patch but not response.patchType",
        ),
        (
            "/patch-without-type",
            false,
            "received invalid webhook response: validating webhook may not return response.patch",
        ),
        ("/other-uid", false, "received invalid webhook response: expected response.uid=\""),
    ] {
        let (code, message) = answer_of(path, is_mutating).await;
        if why.starts_with('/') {
            assert_eq!(code, 201, "{path} has nothing to say");
            continue;
        }
        let name = format!("{}.example.com", path.trim_start_matches('/'));
        assert_eq!(code, 500, "{message}");
        let start = format!("Internal error occurred: failed calling webhook {name:?}: {why}");
        assert!(message.starts_with(&start), "{message}");
    }
    let (code, message) = answer_of("/missing-path", true).await;
    assert_eq!(code, 500);
    assert!(
        message.starts_with("Internal error occurred: ") && message.contains("/data/absent"),
        "{message}"
    );
}

#[tokio::test]
async fn a_webhook_that_fails_open_lets_requests_pass() {
    let (world, hook) = world().await;
    let open = |path: &str| {
        with(
            webhook(&hook, path, &["CREATE"], "/v1/configmaps"),
            &json!({"failurePolicy": "Ignore"}),
        )
    };
    validate(&world, open("/broken")).await;
    mutate(&world, &[open("/no-response"), open("/stage-1")]).await;
    let made = world.make(CONFIG_MAPS, &config_map("a", json!({"mutation-start": "yes"}))).await;
    assert_eq!(made["data"]["mutation-stage-1"], "yes", "the next one is asked");
    // A refusal is no failure.
    register(&world, "validating", "other", &[open("/always-deny")]).await;
    refused(&create(&world, CONFIG_MAPS, &config_map("b", json!({}))).await, "denies all requests");
}

#[tokio::test]
async fn a_dry_run_calls_only_what_has_no_side_effects() {
    let (world, hook) = world().await;
    let dry = format!("{CONFIG_MAPS}?dryRun=All");
    let webhook = webhook(&hook, "/stage-1", &["CREATE"], "/v1/configmaps");
    mutate(&world, &[with(webhook, &json!({"sideEffects": "NoneOnDryRun"}))]).await;
    let made = create(&world, &dry, &config_map("a", json!({"mutation-start": "yes"}))).await;
    assert_eq!(made.json()["data"]["mutation-stage-1"], "yes");
    let request = &hook.take_seen()[0].review["request"];
    assert_eq!(
        (&request["dryRun"], &request["options"]["dryRun"]),
        (&json!(true), &json!(["All"]))
    );
    assert_eq!(world.ask("GET", &format!("{CONFIG_MAPS}/a"), &Value::Null).await.code, 404);
}

#[tokio::test]
async fn warnings_reach_the_client() {
    let (world, hook) = world().await;
    validate(&world, webhook(&hook, "/warn", &["CREATE"], "/v1/configmaps")).await;
    let made = create(&world, CONFIG_MAPS, &config_map("a", json!({}))).await;
    let warnings: Vec<&str> =
        made.headers.get_all("warning").iter().filter_map(|value| value.to_str().ok()).collect();
    assert_eq!(warnings, ["299 - \"be careful\""]);
}

#[tokio::test]
async fn a_deletion_cannot_be_changed() {
    let (world, hook) = world().await;
    world.make(CONFIG_MAPS, &config_map("a", json!({"mutation-start": "yes"}))).await;
    mutate(&world, &[webhook(&hook, "/stage-1", &["DELETE"], "/v1/configmaps")]).await;
    let path = format!("{CONFIG_MAPS}/a");
    let denied = world.ask("DELETE", &path, &Value::Null).await;
    refused(&denied, "attempted to modify the object, which is not supported for this operation");
    let request = &hook.take_seen()[0].review["request"];
    assert_eq!((&request["object"], &request["operation"]), (&Value::Null, &json!("DELETE")));
    assert_eq!(request["oldObject"]["metadata"]["name"], "a");
    assert_eq!(request["options"]["kind"], "DeleteOptions");
    world.ask("DELETE", &format!("{GROUP}/mutatingwebhookconfigurations/test"), &Value::Null).await;
    assert_eq!(world.ask("DELETE", &path, &Value::Null).await.code, 200);
}

#[tokio::test]
async fn calls_and_refusals_are_counted() {
    let (world, hook) = world().await;
    let named = |path: &str, name: &str, policy: &str| {
        with(
            webhook(&hook, path, &["CREATE"], "/v1/configmaps"),
            &json!({"name": name, "failurePolicy": policy}),
        )
    };
    let hooks = [
        named("/stage-1", "fine.counted.example.com", "Fail"),
        named("/no-response", "open.counted.example.com", "Ignore"),
    ];
    mutate(&world, &hooks).await;
    validate(&world, named("/teapot", "refusing.counted.example.com", "Fail")).await;
    assert_eq!(create(&world, CONFIG_MAPS, &config_map("a", json!({}))).await.code, 418);
    register(
        &world,
        "mutating",
        "closed",
        &[named("/no-response", "closed.counted.example.com", "Fail")],
    )
    .await;
    assert_eq!(create(&world, CONFIG_MAPS, &config_map("a", json!({}))).await.code, 500);
    let metrics = world.ask("GET", "/metrics", &Value::Null).await;
    let text = String::from_utf8_lossy(&metrics.bytes).into_owned();
    let family =
        |name: &str, labels: &str| format!("apiserver_admission_webhook_{name}{{{labels}}}");
    let lines = [
        family(
            "request_total",
            "code=\"200\",name=\"fine.counted.example.com\",operation=\"CREATE\",rejected=\"false\",type=\"admit\"",
        ),
        family(
            "request_total",
            "code=\"418\",name=\"refusing.counted.example.com\",operation=\"CREATE\",rejected=\"true\",type=\"validating\"",
        ),
        family(
            "admission_duration_seconds_count",
            "name=\"refusing.counted.example.com\",operation=\"CREATE\",rejected=\"true\",type=\"validating\"",
        ),
        family(
            "rejection_count",
            "error_type=\"no_error\",name=\"refusing.counted.example.com\",operation=\"CREATE\",rejection_code=\"418\",type=\"validating\"",
        ),
        family(
            "rejection_count",
            "error_type=\"calling_webhook_error\",name=\"closed.counted.example.com\",operation=\"CREATE\",rejection_code=\"0\",type=\"admit\"",
        ),
        family("fail_open_count", "name=\"open.counted.example.com\",type=\"admit\""),
    ];
    for line in lines {
        assert!(text.contains(&format!("\n{line} ")), "{line} is not in\n{text}");
    }
    assert!(!text.contains("fail_open_count{name=\"closed"));
}
