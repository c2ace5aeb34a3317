//! Objects of the past, there and back.

use api::registry::Registry;

use super::*;

fn row(group: &str, version: &str, name: &str) -> &'static Resource {
    Registry::built_in().find(group, version, name, "").expect("a row")
}

fn there_and_back(row: &Resource, old: &Value, new: &Value) {
    let mut object = old.clone();
    to_current(row, &mut object);
    assert_eq!(&object, new);
    to_legacy(row, &mut object);
    assert_eq!(&object, old);
}

#[test]
fn back_ends_of_ingresses_are_a_name_and_a_port() {
    for group in ["extensions", "networking.k8s.io"] {
        let old = json!({"apiVersion": format!("{group}/v1beta1"), "spec": {
            "backend": {"serviceName": "d", "servicePort": 80},
            "rules": [{"host": "h", "http": {"paths": [
                {"path": "/", "pathType": "Prefix", "backend": {"serviceName": "a", "servicePort": "http"}},
                {"backend": {"resource": {"kind": "K", "name": "n"}}}]}}, {"host": "bare"}]}});
        let new = json!({"apiVersion": "networking.k8s.io/v1", "spec": {
            "defaultBackend": {"service": {"name": "d", "port": {"number": 80}}},
            "rules": [{"host": "h", "http": {"paths": [
                {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "a", "port": {"name": "http"}}}},
                {"backend": {"resource": {"kind": "K", "name": "n"}}}]}}, {"host": "bare"}]}});
        there_and_back(row(group, "v1beta1", "ingresses"), &old, &new);
    }
}

#[test]
fn metrics_of_autoscalers_had_fields_of_their_own() {
    let old = json!({"apiVersion": "autoscaling/v2beta1", "spec": {"metrics": [
        {"type": "Resource", "resource": {"name": "cpu", "targetAverageUtilization": 50}},
        {"type": "Resource", "resource": {"name": "memory", "targetAverageValue": "1Gi"}},
        {"type": "Pods", "pods": {"metricName": "qps", "targetAverageValue": "10", "selector": {"matchLabels": {"a": "b"}}}},
        {"type": "Object", "object": {"target": {"kind": "Ingress", "name": "i"}, "metricName": "rps", "targetValue": "5"}},
        {"type": "External", "external": {"metricName": "queue", "metricSelector": {}, "targetAverageValue": "3"}}]},
        "status": {"currentMetrics": [
            {"type": "Resource", "resource": {"name": "cpu", "currentAverageUtilization": 7, "currentAverageValue": "7m"}}]}});
    let new = json!({"apiVersion": "autoscaling/v2", "spec": {"metrics": [
        {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}},
        {"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}}},
        {"type": "Pods", "pods": {"metric": {"name": "qps", "selector": {"matchLabels": {"a": "b"}}}, "target": {"type": "AverageValue", "averageValue": "10"}}},
        {"type": "Object", "object": {"describedObject": {"kind": "Ingress", "name": "i"}, "metric": {"name": "rps"}, "target": {"type": "Value", "value": "5"}}},
        {"type": "External", "external": {"metric": {"name": "queue", "selector": {}}, "target": {"type": "AverageValue", "averageValue": "3"}}}]},
        "status": {"currentMetrics": [
            {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 7, "averageValue": "7m"}}}]}});
    there_and_back(row("autoscaling", "v2beta1", "horizontalpodautoscalers"), &old, &new);
}

#[test]
fn an_empty_selector_of_a_budget_selected_nothing() {
    let old = json!({"apiVersion": "policy/v1beta1", "spec": {"selector": {}}});
    let new = json!({"apiVersion": "policy/v1", "spec": {"selector": *NOTHING}});
    there_and_back(row("policy", "v1beta1", "poddisruptionbudgets"), &old, &new);
}

#[test]
fn a_deployment_of_2016_selects_by_its_template() {
    let template = json!({"metadata": {"labels": {"app": "a"}}});
    let mut object = json!({"metadata": {"name": "x"}, "spec": {"template": template}});
    let row = row("extensions", "v1beta1", "deployments");
    default(row, &mut object);
    assert_eq!(
        object,
        json!({"metadata": {"name": "x", "labels": {"app": "a"}}, "spec": {"template": template,
            "selector": {"matchLabels": {"app": "a"}},
            "strategy": {"rollingUpdate": {"maxUnavailable": 1, "maxSurge": 1}}}})
    );
    object["apiVersion"] = "extensions/v1beta1".into();
    object["spec"]["rollbackTo"] = json!({"revision": 1});
    to_current(row, &mut object);
    assert_eq!(object["apiVersion"], "apps/v1");
    assert!(object["spec"].get("rollbackTo").is_none());
    let said = json!({"matchLabels": {"b": "c"}});
    let mut object = json!({"spec": {"template": template, "selector": said}});
    default(row, &mut object);
    assert_eq!(object["spec"]["selector"], said);
}

#[test]
fn the_warning_names_the_version_of_today() {
    assert_eq!(
        deprecation(row("batch", "v1beta1", "cronjobs")).as_deref(),
        Some(
            "batch/v1beta1 CronJob is deprecated in v1.21+, unavailable in v1.25+; use batch/v1 CronJob"
        )
    );
    assert_eq!(deprecation(row("batch", "v1", "cronjobs")), None);
}
