//! Which endpoints a service's traffic may use on this node: readiness, topology, locality.
//!
//! "Usable" means ready; when no endpoint at all is ready, those that terminate but still serve are
//! used, so that a rolling update of a single replica loses no connection. The rules are those of
//! upstream (pkg/proxy/topology.go), stated anew.

use crate::model::Endpoint;

/// Where this node is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub node: &'a str,
    pub zone: &'a str,
}

/// The endpoints for each traffic policy. A list is empty when its policy is not used.
#[derive(Debug, Default)]
pub(crate) struct Selection<'e> {
    pub cluster: Vec<&'e Endpoint>,
    pub local: Vec<&'e Endpoint>,
    /// Whether any endpoint anywhere would take traffic.
    pub any: bool,
}

enum Topology {
    Anywhere,
    SameNode,
    SameZone,
}

pub(crate) fn select<'e>(
    endpoints: &[&'e Endpoint],
    wants_cluster: bool,
    wants_local: bool,
    place: Place<'_>,
) -> Selection<'e> {
    let mut selection =
        Selection { any: endpoints.iter().any(|e| usable(e)), ..Selection::default() };
    if wants_cluster {
        let topology = topology(endpoints, place);
        let near = endpoints.iter().copied().filter(|e| e.ready && allows(&topology, e, place));
        selection.cluster = or_terminating(near.collect(), endpoints.iter().copied());
    }
    if wants_local {
        let here = || endpoints.iter().copied().filter(|e| e.node.as_deref() == Some(place.node));
        selection.local = or_terminating(here().filter(|e| e.ready).collect(), here());
    }
    selection
}

fn usable(endpoint: &Endpoint) -> bool {
    endpoint.ready || (endpoint.serving && endpoint.terminating)
}

fn or_terminating<'e>(
    ready: Vec<&'e Endpoint>,
    all: impl Iterator<Item = &'e Endpoint>,
) -> Vec<&'e Endpoint> {
    if ready.is_empty() { all.filter(|e| e.serving && e.terminating).collect() } else { ready }
}

/// Hints count only when every ready endpoint has some and one of them is meant for this place.
fn topology(endpoints: &[&Endpoint], place: Place<'_>) -> Topology {
    let ready = || endpoints.iter().filter(|e| e.ready);
    let hinted = |hints: fn(&Endpoint) -> &[String], wanted: &str| {
        ready().all(|e| !hints(e).is_empty()) && ready().any(|e| has(hints(e), wanted))
    };
    if hinted(|e| &e.node_hints, place.node) {
        Topology::SameNode
    } else if hinted(|e| &e.zone_hints, place.zone) {
        Topology::SameZone
    } else {
        Topology::Anywhere
    }
}

fn allows(topology: &Topology, endpoint: &Endpoint, place: Place<'_>) -> bool {
    match topology {
        Topology::Anywhere => true,
        Topology::SameNode => has(&endpoint.node_hints, place.node),
        Topology::SameZone => has(&endpoint.zone_hints, place.zone),
    }
}

fn has(hints: &[String], wanted: &str) -> bool {
    hints.iter().any(|hint| hint == wanted)
}
