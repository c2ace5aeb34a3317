use api::registry::{Registry, Resource};
use serde_json::{Value, json};

use super::*;

fn row(group: &str, name: &str, subresource: &str) -> &'static Resource {
    let versions = ["v1", "v2"].into_iter();
    let mut found = versions.filter_map(|v| Registry::built_in().find(group, v, name, subresource));
    found.next().expect("a built-in resource")
}

fn told(group: &str, name: &str, object: Value) -> Vec<String> {
    warnings(row(group, name, ""), &object, None)
}

fn pod(spec: Value) -> Vec<String> {
    told("", "pods", json!({"metadata": {"name": "a"}, "spec": spec}))
}

fn containers(list: Value) -> Vec<String> {
    pod(json!({"containers": list}))
}

#[test]
fn variables_that_hide_others_are_told() {
    let env = |value: Value| json!([{"name": "c", "env": [{"name": "A", "value": "1"}, value]}]);
    let hides = [
        "spec.containers[0].env[1]: hides previous definition of \"A\", which may be dropped when using apply",
    ];
    assert_eq!(containers(env(json!({"name": "A", "value": "2"}))), hides);
    assert_eq!(containers(env(json!({"name": "A", "value": "$(A)"}))), hides);
    assert_eq!(containers(env(json!({"name": "A", "value": "x$(A)"}))).len(), 0);
    assert_eq!(containers(env(json!({"name": "B"}))).len(), 0);
}

#[test]
fn ports_that_clash_are_told() {
    let two = |a: Value, b: Value| {
        containers(json!([{"name": "a", "ports": [a]}, {"name": "b", "ports": [b]}]))
    };
    let port = |host: i64, ip: &str| json!({"containerPort": 80, "protocol": "TCP", "hostPort": host, "hostIP": ip});
    let how = |a, b| two(a, b).first().map(|text| text.split(' ').nth(1).unwrap_or("").to_owned());
    assert_eq!(how(port(0, ""), port(0, "")).as_deref(), Some("duplicate"));
    assert_eq!(how(port(1, ""), port(0, "")).as_deref(), Some("overlapping"));
    assert_eq!(how(port(0, ""), port(1, "")).as_deref(), Some("overlapping"));
    assert_eq!(how(port(1, "1.1.1.1"), port(1, "")).as_deref(), Some("dangerously"));
    assert_eq!(how(port(1, "1.1.1.1"), port(1, "2.2.2.2")), None);
    assert_eq!(how(port(1, ""), port(2, "")), None);
    let alone = containers(json!([{"name": "a", "ports": [port(0, "1.1.1.1")]}]));
    assert_eq!(
        alone,
        [
            "spec.containers[0].ports[0]: hostIP set without hostPort: {Name: HostPort:0 ContainerPort:80 Protocol:TCP HostIP:1.1.1.1}"
        ]
    );
    let named = json!({"name": "web", "containerPort": 1});
    let named = two(named, json!({"name": "web", "containerPort": 2}));
    assert_eq!(
        named,
        [
            "spec.containers[1].ports[0]: duplicate port name \"web\" with spec.containers[0].ports[0], services and probes that select ports by name will use spec.containers[0].ports[0]"
        ]
    );
}

#[test]
fn many_ports_take_little_time_and_room() {
    let ports: Vec<Value> = (0..20_000).map(|_| json!({"containerPort": 80})).collect();
    let told = containers(json!([{"name": "a", "ports": ports}]));
    assert!(told.iter().map(String::len).sum::<usize>() < 2 * BYTES_MAX);
    let ports: Vec<Value> = (0..20_000)
        .map(|n| json!({"containerPort": 80, "hostPort": 1, "hostIP": format!("10.0.{}.{}", n / 256, n % 256)}))
        .collect();
    assert_eq!(containers(json!([{"name": "a", "ports": ports}])).len(), 0);
}

#[test]
fn old_fields_of_pods_are_told() {
    for (spec, expected) in [
        (
            json!({"nodeSelector": {"beta.kubernetes.io/os": "x"}}),
            "spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \"kubernetes.io/os\" instead",
        ),
        (
            json!({"volumes": [{"gitRepo": {}}]}),
            "spec.volumes[0].gitRepo: deprecated in v1.11, and disabled by default in v1.33+",
        ),
        (
            json!({"volumes": [{"storageos": {}}]}),
            "spec.volumes[0].storageOS: deprecated in v1.22, non-functional in v1.25+",
        ),
        (
            json!({"imagePullSecrets": [{}]}),
            "spec.imagePullSecrets[0].name: invalid empty name \"\"",
        ),
        (
            json!({"terminationGracePeriodSeconds": -1}),
            "spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1",
        ),
        (
            json!({"overhead": {"memory": "100m"}}),
            "spec.overhead[memory]: fractional byte value \"100m\" is invalid, must be an integer",
        ),
        (
            json!({"hostAliases": [{"ip": "1.1.1.1"}, {"ip": "1.1.1.1"}]}),
            "spec.hostAliases[1].ip: duplicate ip \"1.1.1.1\"",
        ),
        (
            json!({"topologySpreadConstraints": [{"topologyKey": "x"}]}),
            "spec.topologySpreadConstraints[0].labelSelector: a null labelSelector results in matching no pod",
        ),
        (
            json!({"dnsConfig": {"nameservers": ["FE80::1"]}}),
            "spec.dnsConfig.nameservers[0]: IPv6 address \"FE80::1\" should be in RFC 5952 canonical format (\"fe80::1\")",
        ),
    ] {
        assert_eq!(pod(spec), [expected]);
    }
    assert_eq!(
        told("", "pods", json!({"metadata": {"name": "a.b"}}))[0],
        "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: [must not contain dots]"
    );
}

#[test]
fn overlapping_files_are_told() {
    let volume = |source: Value| pod(json!({"volumes": [source]}));
    let items = |paths: &[&str]| paths.iter().map(|p| json!({"path": p})).collect::<Vec<Value>>();
    let told = volume(
        json!({"name": "v", "configMap": {"name": "m", "items": items(&["a/b", "x", "a", "ab"])}}),
    );
    assert_eq!(told, ["volume \"v\" (ConfigMap \"m\"): overlapping paths: \"a\" with \"a/b\""]);
    let told = volume(json!({"name": "v", "projected": {"sources": [
        {"secret": {"name": "s", "items": items(&["t"])}}, {}, {"serviceAccountToken": {"path": "t"}}]}}));
    assert_eq!(
        told,
        [
            "volume \"v\" (Projected) has no sources provided",
            "volume \"v\" (Projected): overlapping paths: \"t\" (ServiceAccountToken) with \"t\" (Secret \"s\")"
        ]
    );
}

#[test]
fn annotations_that_fields_replaced_are_told() {
    let key = "container.apparmor.security.beta.kubernetes.io/c";
    let set = |annotation: &str, profile: Value| {
        let template = json!({"metadata": {"annotations": {key: annotation}},
            "spec": {"securityContext": {"appArmorProfile": profile}, "containers": [{"name": "c"}]}});
        told(
            "apps",
            "deployments",
            json!({"metadata": {"name": "a"}, "spec": {"template": template}}),
        )
    };
    let expected = [format!(
        "spec.template.metadata.annotations[{key}]: deprecated since v1.30; use the \"appArmorProfile\" field instead"
    )];
    assert_eq!(set("unconfined", Value::Null), expected);
    assert_eq!(set("unconfined", json!({"type": "RuntimeDefault"})), expected);
    assert_eq!(set("unconfined", json!({"type": "Unconfined"})).len(), 0);
}

#[test]
fn templates_are_looked_at_once_a_generation() {
    let template = json!({"spec": {"imagePullSecrets": [{}]}});
    let set = |generation: i64| json!({"metadata": {"name": "a", "generation": generation}, "spec": {"template": template}});
    let row = row("apps", "deployments", "");
    assert_eq!(warnings(row, &set(1), Some(&set(1))).len(), 0);
    assert_eq!(warnings(row, &set(2), Some(&set(1))).len(), 1);
}

#[test]
fn services_are_told_what_they_ignore() {
    let service = |spec: Value| told("", "services", json!({"spec": spec}));
    let headless = json!({"type": "ClusterIP", "clusterIP": "None", "sessionAffinity": "ClientIP", "loadBalancerIP": "1.1.1.1"});
    assert_eq!(
        service(headless),
        [
            "spec.loadBalancerIP is ignored for headless services",
            "spec.SessionAffinity is ignored for headless services"
        ]
    );
    let external = json!({"type": "ClusterIP", "externalIPs": ["010.0.0.1"], "externalName": "n"});
    assert_eq!(
        service(external),
        [
            "spec.externalIPs[0]: non-standard IP address \"010.0.0.1\" is invalid: use \"10.0.0.1\"",
            "spec.externalIPs is deprecated and may no longer be implemented in some clusters",
            "spec.externalName is ignored when spec.type is not \"ExternalName\""
        ]
    );
    let ranges = json!({"type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.1/8", "FE80::/10", "::ffff:10.0.0.0/104"]});
    assert_eq!(
        service(ranges),
        [
            "spec.loadBalancerSourceRanges[0]: CIDR value \"10.0.0.1/8\" is ambiguous in this context (should be \"10.0.0.0/8\" or \"10.0.0.1/32\"?)",
            "spec.loadBalancerSourceRanges[1]: IPv6 CIDR value \"FE80::/10\" should be in RFC 5952 canonical format (\"fe80::/10\")",
            "spec.loadBalancerSourceRanges[2]: non-standard CIDR value \"::ffff:10.0.0.0/104\" is invalid: use \"10.0.0.0/8\""
        ]
    );
}

#[test]
fn storage_is_told_what_is_old() {
    let volume = json!({"metadata": {"annotations": {"volume.beta.kubernetes.io/storage-class": "c"}},
        "spec": {"persistentVolumeReclaimPolicy": "Recycle", "rbd": {}}});
    assert_eq!(told("", "persistentvolumes", volume).len(), 3);
    let class = json!({"allowedTopologies": [{"matchLabelExpressions": [{"key": "failure-domain.beta.kubernetes.io/zone"}]}]});
    assert_eq!(told("storage.k8s.io", "storageclasses", class).len(), 1);
    let driver = json!({"spec": {"tokenRequests": [{"audience": "a"}]}});
    assert_eq!(told("storage.k8s.io", "csidrivers", driver.clone()).len(), 1);
    assert_eq!(warnings(row("storage.k8s.io", "csidrivers", ""), &driver, Some(&driver)).len(), 0);
    let set = json!({"metadata": {"name": "a"}, "spec": {"revisionHistoryLimit": -1,
        "volumeClaimTemplates": [{"spec": {"resources": {"requests": {"storage": "1500m"}}}}]}});
    assert_eq!(
        told("apps", "statefulsets", set),
        [
            "spec.volumeClaimTemplates[0].resources.requests[storage]: fractional byte value \"1500m\" is invalid, must be an integer",
            "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended"
        ]
    );
}

#[test]
fn other_kinds_have_their_warnings() {
    let quota = json!({"spec": {"hard": {"cpu": "2", "limits.cpu": "1", "requests.storage": "1"}}});
    assert_eq!(
        told("", "resourcequotas", quota),
        ["ResourceQuota cpu (2) should be less than limits.cpu (1)"]
    );
    let secret = json!({"type": "kubernetes.io/tls", "data": {"tls.crt": "", "tls.key": ""}});
    assert_eq!(
        told("", "secrets", secret),
        ["tls: failed to find any PEM data in certificate input"]
    );
    let slice = json!({"spec": {"driver": "Ab"}});
    assert_eq!(told("resource.k8s.io", "resourceslices", slice).len(), 1);
    let named = json!({"metadata": {"name": "a.static.k8s.io"}});
    assert_eq!(
        told("admissionregistration.k8s.io", "validatingwebhookconfigurations", named).len(),
        1
    );
    let schema = json!({"properties": {"a": {"type": "string", "format": "odd"}, "b": {"type": "integer", "format": "int32"}, "c": {"type": "string", "format": "k8s-short-name"}}});
    let definition = json!({"spec": {"versions": [{"schema": {"openAPIV3Schema": schema}}]}});
    assert_eq!(
        told("apiextensions.k8s.io", "customresourcedefinitions", definition.clone()),
        ["unrecognized format \"odd\""]
    );
    let row = row("apiextensions.k8s.io", "customresourcedefinitions", "");
    assert_eq!(warnings(row, &definition, Some(&definition)).len(), 0);
    let runtime = json!({"scheduling": {"nodeSelector": {"node-role.kubernetes.io/master": ""}}});
    assert_eq!(told("node.k8s.io", "runtimeclasses", runtime).len(), 1);
    let node = json!({"spec": {"externalID": "x", "podCIDRs": ["10.0.0.1/24"]}});
    assert_eq!(told("", "nodes", node).len(), 2);
}

#[test]
fn new_finalizers_of_custom_resources_should_have_a_domain() {
    let with = |list: Value| json!({"metadata": {"finalizers": list}});
    let new = with(json!(["orphan", "a.b/c", "resources.argocd", "plain"]));
    assert_eq!(
        custom_warnings(&new, Some(&with(json!(["plain"])))),
        [
            "metadata.finalizers: \"resources.argocd\": prefer a domain-qualified finalizer name including a path (/) to avoid accidental conflicts with other finalizer writers"
        ]
    );
    assert_eq!(custom_warnings(&new, None).len(), 2);
}

#[test]
fn pairs_are_told_by_their_pem_blocks() {
    let block = |kind: &str| format!("-----BEGIN {kind}-----\nAAAA\n-----END {kind}-----\n");
    let told = |certificate: &str, key: &str| pair::fault(certificate.as_bytes(), key.as_bytes());
    let (certificate, key) = (block("CERTIFICATE"), block("EC PRIVATE KEY"));
    assert_eq!(told(&certificate, &key), None);
    assert!(told(&key, &key).is_some_and(|text| text.ends_with("may have been switched")));
    assert!(
        told(&certificate, &certificate).is_some_and(|text| text.contains("rather than a key"))
    );
    assert!(
        told(&certificate, &block("PARAMETERS")).is_some_and(|text| text.ends_with("[PARAMETERS]"))
    );
}
