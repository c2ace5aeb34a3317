//! Ingresses and their classes.

use api::names;
use serde_json::Value;

use crate::check::At;
use crate::core::service::host_name;
use crate::formats::{port_name, sloppy_ip, wildcard_subdomain};
use crate::shared::{domain_prefixed_path, legacy_ip, port_number, texts};
use crate::value::set_default;
use crate::{Kind, PLAIN};

pub(crate) static KIND: Kind = Kind {
    create: |ingress| {
        spec(&ingress.get("spec"));
        class_agrees(ingress);
    },
    update: |ingress| spec(&ingress.get("spec")),
    status,
    again: true,
    ..PLAIN
};
pub(crate) static CLASS: Kind = Kind {
    default: |object| {
        let parameters = object.pointer_mut("/spec/parameters").filter(|p| p.is_object());
        if let Some(parameters) = parameters {
            set_default(parameters, "scope", "Cluster");
        }
    },
    create: |class| class_spec(&class.get("spec")),
    update: |class| {
        let spec = class.get("spec");
        if !spec.get("controller").unchanged() {
            spec.get("controller").invalid_text("field is immutable");
        }
        class_spec(&spec);
    },
    again: true,
    ..PLAIN
};

fn class_agrees(ingress: &At<'_>) {
    const OLD: &str = "kubernetes.io/ingress.class";
    let (meta, spec) = (ingress.get("metadata"), ingress.get("spec"));
    let class = spec.get("ingressClassName");
    let Some(old) = meta.value()["annotations"].get(OLD).and_then(Value::as_str) else { return };
    if !class.is_absent() && class.text() != old {
        let annotations = ingress.get("annotations");
        annotations
            .get(OLD)
            .invalid_as(&old.into(), "must match `ingressClassName` when both are specified");
    }
}

fn spec(spec: &At<'_>) {
    let (rules, default) = (spec.get("rules"), spec.get("defaultBackend"));
    if rules.is_empty() && default.is_absent() {
        spec.invalid_as(rules.value(), "either `defaultBackend` or `rules` must be specified");
    }
    if !default.is_absent() {
        backend(&default);
    }
    rules.items().for_each(|at| rule(&at));
    spec.get("tls").items().for_each(|at| tls(&at));
    let class = spec.get("ingressClassName");
    if !class.is_absent() {
        class.named(names::dns_subdomain);
    }
}

fn domain(host: &At<'_>) {
    match host.text().contains('*') {
        true => host.named(wildcard_subdomain),
        false => host.named(names::dns_subdomain),
    }
}

fn tls(tls: &At<'_>) {
    tls.get("hosts").items().for_each(|host| domain(&host));
    let secret = tls.get("secretName");
    if !secret.is_empty() {
        secret.named(names::dns_subdomain);
    }
}

fn rule(rule: &At<'_>) {
    let (host, http) = (rule.get("host"), rule.get("http"));
    if !host.is_empty() {
        if sloppy_ip(host.text()).is_some() {
            host.invalid("must be a DNS name, not an IP address");
        }
        domain(&host);
    }
    if http.is_absent() {
        return;
    }
    http.get("paths").need();
    http.get("paths").items().for_each(|at| path(&at));
}

fn path(at: &At<'_>) {
    let (kind, path) = (at.get("pathType"), at.get("path"));
    if kind.is_absent() {
        return kind.required("pathType must be specified");
    }
    let text = path.text();
    match kind.text() {
        "Exact" | "Prefix" => {
            if !text.starts_with('/') {
                path.invalid_text("must be an absolute path");
            }
            for part in ["//", "/./", "/../", "%2f", "%2F"] {
                if text.contains(part) {
                    path.invalid(&format!("must not contain '{part}'"));
                }
            }
            for end in ["/..", "/."] {
                if text.ends_with(end) {
                    path.invalid(&format!("cannot end with '{end}'"));
                }
            }
        }
        "ImplementationSpecific" => {
            if !text.is_empty() && !text.starts_with('/') {
                path.invalid("must be an absolute path");
            }
        }
        _ => kind.not_supported(&["Exact", "ImplementationSpecific", "Prefix"]),
    }
    backend(&at.get("backend"));
}

fn backend(at: &At<'_>) {
    let empty = Value::from("");
    let (resource, service) = (at.get("resource"), at.get("service"));
    match (!resource.is_absent(), !service.is_absent()) {
        (true, true) => at.invalid_as(&empty, "cannot set both resource and service backends"),
        (true, false) => typed_reference(&resource),
        (false, true) => service_backend(at, &service),
        (false, false) => at.invalid_as(&empty, "resource or service backend is required"),
    }
}

fn service_backend(at: &At<'_>, service: &At<'_>) {
    let (service_name, port) = (service.get("name"), service.get("port"));
    if service_name.need() {
        service_name.named(names::dns_label);
    }
    let (name, number) = (port.get("name"), port.get("number"));
    match (!name.is_empty(), number.number() != 0) {
        (true, true) => at.invalid_as(&"".into(), "cannot set both port name & port number"),
        (true, false) => name.named(port_name),
        (false, true) => port_number(&number),
        (false, false) => at.required("port name or number is required"),
    }
}

fn typed_reference(reference: &At<'_>) {
    let group = reference.get("apiGroup");
    if !group.is_absent() {
        group.named(names::dns_subdomain);
    }
    for field in ["kind", "name"] {
        if reference.get(field).need() {
            reference.get(field).named(names::path_segment);
        }
    }
}

fn status(ingress: &At<'_>) {
    let status = ingress.get("status");
    let balancer = status.get("loadBalancer");
    let list = balancer.get("ingress");
    let before = texts(list.old(), Some("ip"));
    for item in list.items() {
        let ip = item.get("ip");
        if !ip.is_empty() {
            legacy_ip(&ip, &before);
        }
        host_name(&item.get("hostname"));
    }
}

fn class_spec(spec: &At<'_>) {
    let controller = spec.get("controller");
    if controller.text().len() > 250 {
        controller.too_long(250);
    }
    domain_prefixed_path(&controller);
    let parameters = spec.get("parameters");
    if parameters.is_absent() {
        return;
    }
    typed_reference(&parameters);
    let (scope, namespace) = (parameters.get("scope"), parameters.get("namespace"));
    match scope.value().as_str() {
        None => scope.required(""),
        Some("Namespace") if namespace.is_absent() => {
            namespace.required("`parameters.scope` is set to 'Namespace'");
        }
        Some("Namespace") => namespace.named(names::dns_label),
        Some("Cluster") if !namespace.is_absent() => {
            namespace.forbidden("`parameters.scope` is set to 'Cluster'");
        }
        Some("Cluster") => {}
        Some(_) => scope.not_supported(&["Cluster", "Namespace"]),
    }
}
