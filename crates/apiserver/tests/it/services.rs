//! What Services are given, and the objects that show it.

use serde_json::{Value, json};

use crate::harness::World;

const SERVICES: &str = "/api/v1/namespaces/default/services";
const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";

fn service(name: &str, spec: &Value) -> Value {
    json!({"metadata": {"name": name}, "spec": spec})
}

#[tokio::test]
async fn the_range_of_services_is_an_object() {
    let world = World::new().await;
    let path = "/apis/networking.k8s.io/v1/servicecidrs/kubernetes";
    let range = world.ask("GET", path, &Value::Null).await.json();
    assert_eq!(range["spec"]["cidrs"], json!(["10.43.0.0/16"]));
    let condition = &range["status"]["conditions"][0];
    assert_eq!((&condition["type"], &condition["status"]), (&json!("Ready"), &json!("True")));
}

#[tokio::test]
async fn every_cluster_ip_has_its_object() {
    let world = World::new().await;
    let watch = format!("{ADDRESSES}?watch=true&resourceVersion=0");
    let is = |name: &'static str| {
        move |kind: &str, o: &Value| kind == "ADDED" && o["metadata"]["name"] == name
    };
    world.until(&watch, is("10.43.0.1")).await;
    let sent = service("a", &json!({"clusterIP": "10.43.0.9", "ports": [{"port": 80}]}));
    assert_eq!(world.ask("POST", SERVICES, &sent).await.code, 201);
    let address = world.until(&watch, is("10.43.0.9")).await;
    assert_eq!(
        address["spec"]["parentRef"],
        json!({"resource": "services", "namespace": "default", "name": "a"})
    );
    assert_eq!(address["metadata"]["labels"]["ipaddress.kubernetes.io/ip-family"], "IPv4");
    // One that is in use comes back.
    let one = format!("{ADDRESSES}/10.43.0.9");
    let deleted = world.ask("DELETE", &one, &Value::Null).await;
    assert_eq!(deleted.code, 200);
    world
        .until(&watch, |kind, o| {
            kind == "ADDED"
                && o["metadata"]["name"] == "10.43.0.9"
                && o["metadata"]["uid"] != address["metadata"]["uid"]
        })
        .await;
    let list = world.ask("GET", ADDRESSES, &Value::Null).await.json();
    let from = format!(
        "{ADDRESSES}?watch=true&resourceVersion={}",
        list["metadata"]["resourceVersion"].as_str().unwrap_or("")
    );
    assert_eq!(world.ask("DELETE", &format!("{SERVICES}/a"), &Value::Null).await.code, 200);
    world.until(&from, |kind, o| kind == "DELETED" && o["metadata"]["name"] == "10.43.0.9").await;
    // The same address may be asked for again at once.
    assert_eq!(world.ask("POST", SERVICES, &sent).await.code, 201);
}

#[tokio::test]
async fn addresses_that_others_keep_are_not_given_out() {
    let world = World::new().await;
    let kept = json!({"metadata": {"name": "10.43.0.77"}, "spec": {"parentRef":
        {"group": "example.com", "resource": "things", "name": "x"}}});
    assert_eq!(world.ask("POST", ADDRESSES, &kept).await.code, 201);
    let sent = service("a", &json!({"clusterIP": "10.43.0.77", "ports": [{"port": 80}]}));
    let answer = world.ask("POST", SERVICES, &sent).await;
    assert_eq!(answer.code, 422);
    assert!(String::from_utf8_lossy(&answer.bytes).contains("already allocated"));
    let six = json!({"metadata": {"name": "fe80::42:1dff:fe84:f9e2"}, "spec": kept["spec"]});
    assert_eq!(world.ask("POST", ADDRESSES, &six).await.code, 201);
    let one = format!("{ADDRESSES}/fe80::42:1dff:fe84:f9e2");
    assert_eq!(world.ask("DELETE", &one, &Value::Null).await.code, 200);
}

const RANGES: &str = "/apis/networking.k8s.io/v1/servicecidrs";

/// Says that a range is ready, or is not, as its controller does.
async fn say(world: &World, range: &str, ready: &str) {
    let path = format!("{RANGES}/{range}/status");
    let condition = json!({"type": "Ready", "status": ready, "reason": "", "message": "",
        "lastTransitionTime": "2026-11-28T00:00:00Z"});
    let mut object = world.ask("GET", &path, &Value::Null).await.json();
    object["status"] = json!({"conditions": [condition]});
    assert_eq!(world.ask("PUT", &path, &object).await.code, 200);
}

#[tokio::test]
async fn addresses_come_from_all_ranges_that_are_ready() {
    let world = World::new().await;
    let more = json!({"metadata": {"name": "more"}, "spec": {"cidrs": ["203.0.113.0/29"]}});
    assert_eq!(world.ask("POST", RANGES, &more).await.code, 201);
    let with =
        |name: &str, ip: &str| service(name, &json!({"clusterIP": ip, "ports": [{"port": 80}]}));
    let refused = async |ip: &str| {
        let answer = world.ask("POST", SERVICES, &with("no", ip)).await;
        assert_eq!(answer.code, 422);
        answer.json()["details"]["causes"][0]["message"].as_str().unwrap_or("").to_owned()
    };
    let elsewhere = |ip: &str| {
        format!(
            "Invalid value: [\"{ip}\"]: failed to allocate IP {ip}: the provided network does not match the current range"
        )
    };
    assert_eq!(refused("203.0.113.2").await, elsewhere("203.0.113.2"), "it is not ready yet");
    say(&world, "more", "True").await;
    assert_eq!(world.ask("POST", SERVICES, &with("a", "203.0.113.2")).await.code, 201);
    assert_eq!(
        refused("203.0.113.7").await,
        "Invalid value: [\"203.0.113.7\"]: failed to allocate IP 203.0.113.7: the provided IP (203.0.113.7) is not in the valid range. The range of valid IPs is 203.0.113.0/29"
    );
    // Without the default range, what is left of the other is given out until it is full.
    say(&world, "kubernetes", "False").await;
    let any = |n: usize| service(&format!("any{n}"), &json!({"ports": [{"port": 80}]}));
    for n in 0..5 {
        let made = world.ask("POST", SERVICES, &any(n)).await;
        assert_eq!(made.code, 201);
        let ip = made.json()["spec"]["clusterIP"].as_str().unwrap_or("").to_owned();
        assert!(ip.starts_with("203.0.113."), "{ip}");
    }
    let full = world.ask("POST", SERVICES, &any(5)).await;
    assert_eq!(full.code, 500);
    let text = String::from_utf8_lossy(&full.bytes).into_owned();
    assert!(
        text.contains("failed to allocate a serviceIP for Service \\\"any5\\\": range is full"),
        "{text}"
    );
    assert_eq!(refused("10.43.0.50").await, elsewhere("10.43.0.50"));
}

#[tokio::test]
async fn node_ports_go_with_the_type_that_has_them() {
    let world = World::new().await;
    let sent = service("a", &json!({"type": "NodePort", "ports": [{"port": 80}]}));
    let mut made = world.ask("POST", SERVICES, &sent).await.json();
    let port = made["spec"]["ports"][0]["nodePort"].clone();
    assert!(port.is_u64());
    made["spec"]["type"] = "ExternalName".into();
    made["spec"]["externalName"] = "example.com".into();
    let changed = world.ask("PUT", &format!("{SERVICES}/a"), &made).await;
    assert_eq!(changed.code, 200, "{:?}", changed.bytes);
    assert!(changed.json()["spec"]["ports"][0]["nodePort"].is_null());
    assert!(changed.json()["spec"]["clusterIP"].is_null());
    // The port is free again.
    let again =
        service("b", &json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]}));
    assert_eq!(world.ask("POST", SERVICES, &again).await.code, 201);
}

#[tokio::test]
async fn flow_schemas_say_whether_their_level_exists() {
    let world = World::new().await;
    let group = "/apis/flowcontrol.apiserver.k8s.io/v1";
    let count = |list: Value| list["items"].as_array().map_or(0, Vec::len);
    let levels = format!("{group}/prioritylevelconfigurations");
    assert_eq!(count(world.ask("GET", &levels, &Value::Null).await.json()), 8);
    let flows = format!("{group}/flowschemas");
    let list = world.ask("GET", &flows, &Value::Null).await.json();
    assert_eq!(count(list.clone()), 11);
    for flow in list["items"].as_array().into_iter().flatten() {
        let condition = &flow["status"]["conditions"][0];
        assert_eq!(
            (&condition["type"], &condition["status"]),
            (&json!("Dangling"), &json!("False")),
            "{flow}"
        );
    }
    let lost = json!({"metadata": {"name": "lost"}, "spec": {
        "priorityLevelConfiguration": {"name": "nowhere"}, "matchingPrecedence": 7}});
    assert_eq!(world.ask("POST", &flows, &lost).await.code, 201);
    let told = |_: &str, o: &Value| {
        o["metadata"]["name"] == "lost" && o["status"]["conditions"][0]["status"] == "True"
    };
    world.until(&format!("{flows}?watch=true&resourceVersion=0"), told).await;
}

/// A client that goes away does not stop the write it asked for: what its Service got stays its own.
#[tokio::test]
async fn who_does_not_wait_keeps_what_was_allocated() {
    let world = World::new().await;
    for n in 10..30 {
        let spec = json!({"clusterIP": format!("10.43.0.{n}"), "ports": [{"port": 80}]});
        let sent = service(&format!("a{n}"), &spec);
        let request = http::Request::post(SERVICES).header("content-type", "application/json");
        let request = request.body(http_body_util::Full::from(sent.to_string()));
        {
            let asked = world.server.serve_as(world.admin.clone(), request.expect("a request"));
            // Mostly the write is under way then.
            let _ = futures::poll!(std::pin::pin!(asked));
        }
        let watch = format!("{SERVICES}?watch=true&resourceVersion=0");
        world.until(&watch, |_, object| object["metadata"]["name"] == format!("a{n}")).await;
        let refused = world.ask("POST", SERVICES, &service("b", &spec)).await;
        assert_eq!(refused.code, 422, "{}", refused.json());
    }
}

#[tokio::test]
async fn families_the_cluster_does_not_have_are_refused() {
    let world = World::new().await;
    let ports = json!([{"port": 80}]);
    for (spec, field) in [
        (json!({"ipFamilyPolicy": "RequireDualStack", "ports": ports}), "spec.ipFamilyPolicy"),
        (json!({"ipFamilies": ["IPv6"], "ports": ports}), "spec.ipFamilies[0]"),
        (
            json!({"clusterIPs": ["fd00::1"], "clusterIP": "fd00::1", "ports": ports}),
            "spec.clusterIPs[0]",
        ),
    ] {
        let refused = world.ask("POST", SERVICES, &service("a", &spec)).await;
        let causes = &refused.json()["details"]["causes"];
        assert_eq!((refused.code, &causes[0]["field"]), (422, &json!(field)), "{causes}");
    }
    let prefers = json!({"ipFamilyPolicy": "PreferDualStack", "ports": ports});
    let made = world.ask("POST", SERVICES, &service("a", &prefers)).await.json();
    assert_eq!(made["spec"]["ipFamilies"], json!(["IPv4"]));
}
