//! Networks of services, and the addresses taken from them.

use api::names;
use serde_json::Value;

use crate::check::At;
use crate::formats::{canonical_cidr, canonical_ip, sloppy_cidr};
use crate::{Kind, PLAIN};

pub(crate) static IP_ADDRESS: Kind = Kind {
    name: canonical_ip,
    create: |address| {
        let spec = address.get("spec");
        parent(&spec.get("parentRef"));
    },
    update: |address| {
        let spec = address.get("spec");
        let parent = spec.get("parentRef");
        if parent.old().is_some_and(|old| !crate::golang::same(old, parent.value())) {
            match parent.is_absent() {
                true => parent.invalid("field is immutable"),
                false => parent.invalid_struct("networking.ParentReference", "field is immutable"),
            }
        }
    },
    anew: true,
    ..PLAIN
};
pub(crate) static SERVICE_CIDR: Kind = Kind {
    create: |network| {
        let spec = network.get("spec");
        cidrs(&spec.get("cidrs"));
    },
    update: |network| {
        let spec = network.get("spec");
        change(&spec.get("cidrs"));
    },
    anew: true,
    ..PLAIN
};

fn parent(reference: &At<'_>) {
    if reference.is_absent() {
        return reference.required("");
    }
    let (group, namespace) = (reference.get("group"), reference.get("namespace"));
    if !group.is_empty() {
        group.named(names::dns_subdomain);
    }
    for field in ["resource", "name"] {
        if reference.get(field).need() {
            reference.get(field).named(names::path_segment);
        }
    }
    if !namespace.is_empty() {
        namespace.named(names::path_segment);
    }
}

fn cidrs(list: &At<'_>) {
    if list.is_empty() {
        return list.required("at least one CIDR required");
    }
    if list.len() > 2 {
        let shown = serde_json::json!({"CIDRs": list.value()});
        return list.invalid_as(&shown, "may only hold up to 2 values");
    }
    list.items().for_each(|cidr| cidr.named(canonical_cidr));
    let families: Vec<Option<bool>> =
        list.items().map(|c| sloppy_cidr(c.text()).map(|(ip, _)| ip.is_ipv4())).collect();
    if let [Some(a), Some(b)] = families[..]
        && a == b
    {
        list.invalid("may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64");
    }
}

/// A second family may be added, nothing else.
fn change(list: &At<'_>) {
    const STAYS: &str = "field is immutable";
    let before = list.old().and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let differs = |at: usize| list.index(at).value() != &before[at];
    if before.len() == list.len() {
        (0..before.len()).filter(|at| differs(*at)).for_each(|at| list.index(at).invalid(STAYS));
    } else if before.len() == 1 && list.len() == 2 {
        if differs(0) {
            list.index(0).invalid(STAYS);
        }
        cidrs(list);
    } else {
        list.invalid(STAYS);
    }
}
