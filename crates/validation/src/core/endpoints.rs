//! Endpoints.

use api::names;

use crate::check::At;
use crate::formats;
use crate::shared::{endpoint_ip, port_number};
use crate::{Kind, PLAIN};

pub(crate) static KIND: Kind = Kind { create: subsets, update: subsets, again: true, ..PLAIN };

fn subsets(object: &At<'_>) {
    let list = object.get("subsets");
    if list.unchanged() {
        return;
    }
    for subset in list.items() {
        let (ready, waiting, ports) =
            (subset.get("addresses"), subset.get("notReadyAddresses"), subset.get("ports"));
        if ready.is_empty() && waiting.is_empty() {
            subset.required("must specify `addresses` or `notReadyAddresses`");
        }
        ready.items().for_each(|at| address(&at));
        waiting.items().for_each(|at| address(&at));
        for at in ports.items() {
            port(&at, ports.len() > 1);
        }
    }
}

fn address(at: &At<'_>) {
    let (ip, host, node) = (at.get("ip"), at.get("hostname"), at.get("nodeName"));
    for fault in formats::ip(ip.text()) {
        ip.invalid_text(&fault);
    }
    if !host.is_empty() {
        host.named(names::dns_label);
    }
    if !node.is_absent() {
        node.named(names::dns_subdomain);
    }
    endpoint_ip(&ip);
}

fn port(at: &At<'_>, named: bool) {
    let name = at.get("name");
    if !name.is_empty() {
        name.named(names::dns_label);
    } else if named {
        name.required("");
    }
    port_number(&at.get("port"));
    at.get("protocol").need_one_of(&["SCTP", "TCP", "UDP"]);
    let app = at.get("appProtocol");
    if !app.is_absent() {
        app.named(names::qualified_name);
    }
}
