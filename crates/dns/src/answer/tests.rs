//! The specification's cases, one line each: question, then what is answered.

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::*;
use crate::model::Change;

fn service(name: &str, spec: Value) -> Change {
    let object = json!({"metadata": {"namespace": "d", "name": name}, "spec": spec});
    Change::Service(Box::new(serde_json::from_value(object).unwrap()))
}

fn index() -> Index {
    let mut index = Index::new();
    let ports = json!([{"name": "http", "port": 80, "protocol": "TCP"},
                       {"name": "dns", "port": 53, "protocol": "UDP"}]);
    index.apply(service(
        "web",
        json!({"clusterIP": "10.43.0.80", "ports": ports,
                                      "clusterIPs": ["10.43.0.80", "fd00:43::80"]}),
    ));
    index.apply(service("db", json!({"clusterIP": "None"})));
    index.apply(service("empty", json!({"clusterIP": "None"})));
    index.apply(service("out", json!({"type": "ExternalName", "externalName": "example.org"})));
    let slice = json!({
        "metadata": {"namespace": "d", "name": "db-1", "labels": {"kubernetes.io/service-name": "db"}},
        "addressType": "IPv4",
        "ports": [{"name": "sql", "port": 5432, "protocol": "TCP"}],
        "endpoints": [
            {"addresses": ["10.42.0.5"], "hostname": "db-0", "conditions": {"ready": true}},
            {"addresses": ["10.42.1.6"], "conditions": {}},
            {"addresses": ["10.42.1.7"], "conditions": {"ready": false}},
        ],
    });
    index.apply(Change::EndpointSlice(Box::new(serde_json::from_value(slice).unwrap())));
    let pod = json!({"metadata": {"namespace": "p", "name": "x"},
                     "status": {"phase": "Running", "podIP": "10.42.0.9",
                                "podIPs": [{"ip": "10.42.0.9"}, {"ip": "fd00:42::9"}]}});
    index.apply(Change::Pod(Box::new(serde_json::from_value(pod).unwrap())));
    index
}

fn ask(index: &Index, questions: &[&str], expected: Expect) {
    let zone = Name::from_ascii("cluster.local.").unwrap();
    let mut text = String::new();
    for question in questions {
        let (kind, name) = question.split_once(' ').unwrap();
        let name = Name::from_ascii(format!("{name}.")).unwrap();
        text += &format!("{question}\n");
        match answer(index, &zone, &name, kind.parse().unwrap()) {
            Answer::Records { answers, additionals } => {
                for record in answers {
                    text += &format!("  {} {}\n", record.ttl, record.data);
                }
                for record in additionals {
                    text += &format!("  + {} {}\n", record.name, record.data);
                }
            }
            Answer::Alias { target, .. } => text += &format!("  alias {target}\n"),
            other => text += &format!("  {other:?}\n"),
        }
    }
    expected.assert_eq(&text);
}

#[test]
fn services() {
    let questions = [
        "A web.d.svc.cluster.local",
        "AAAA WEB.d.svc.Cluster.Local",
        "TXT web.d.svc.cluster.local",
        "SRV _http._tcp.web.d.svc.cluster.local",
        "SRV _http._udp.web.d.svc.cluster.local",
        "A _http._tcp.web.d.svc.cluster.local",
        "A _tcp.web.d.svc.cluster.local",
        "A x.web.d.svc.cluster.local",
        "A nobody.d.svc.cluster.local",
        "A out.d.svc.cluster.local",
        "CNAME out.d.svc.cluster.local",
        "PTR 80.0.43.10.in-addr.arpa",
        "PTR 81.0.43.10.in-addr.arpa",
    ];
    ask(
        &index(),
        &questions,
        expect![[r#"
        A web.d.svc.cluster.local
          5 10.43.0.80
        AAAA WEB.d.svc.Cluster.Local
          5 fd00:43::80
        TXT web.d.svc.cluster.local
          NoData
        SRV _http._tcp.web.d.svc.cluster.local
          5 0 100 80 web.d.svc.cluster.local.
          + web.d.svc.cluster.local. 10.43.0.80
          + web.d.svc.cluster.local. fd00:43::80
        SRV _http._udp.web.d.svc.cluster.local
          NoName
        A _http._tcp.web.d.svc.cluster.local
          NoData
        A _tcp.web.d.svc.cluster.local
          NoData
        A x.web.d.svc.cluster.local
          NoName
        A nobody.d.svc.cluster.local
          NoName
        A out.d.svc.cluster.local
          alias example.org.
        CNAME out.d.svc.cluster.local
          5 example.org.
        PTR 80.0.43.10.in-addr.arpa
          5 web.d.svc.cluster.local.
        PTR 81.0.43.10.in-addr.arpa
          Elsewhere
    "#]],
    );
}

#[test]
fn headless_services() {
    let questions = [
        "A db.d.svc.cluster.local",
        "AAAA db.d.svc.cluster.local",
        "A db-0.db.d.svc.cluster.local",
        "A 10-42-1-6.db.d.svc.cluster.local",
        "A 10-42-1-7.db.d.svc.cluster.local",
        "SRV _sql._tcp.db.d.svc.cluster.local",
        "A empty.d.svc.cluster.local",
        "PTR 5.0.42.10.in-addr.arpa",
    ];
    ask(
        &index(),
        &questions,
        expect![[r#"
        A db.d.svc.cluster.local
          5 10.42.0.5
          5 10.42.1.6
        AAAA db.d.svc.cluster.local
          NoData
        A db-0.db.d.svc.cluster.local
          5 10.42.0.5
        A 10-42-1-6.db.d.svc.cluster.local
          5 10.42.1.6
        A 10-42-1-7.db.d.svc.cluster.local
          NoName
        SRV _sql._tcp.db.d.svc.cluster.local
          5 0 50 5432 db-0.db.d.svc.cluster.local.
          5 0 50 5432 10-42-1-6.db.d.svc.cluster.local.
          + db-0.db.d.svc.cluster.local. 10.42.0.5
          + 10-42-1-6.db.d.svc.cluster.local. 10.42.1.6
        A empty.d.svc.cluster.local
          NoName
        PTR 5.0.42.10.in-addr.arpa
          5 db-0.db.d.svc.cluster.local.
    "#]],
    );
}

#[test]
fn pods_and_the_zone_itself() {
    let questions = [
        "A 10-42-0-9.p.pod.cluster.local",
        "AAAA fd00-42--9.p.pod.cluster.local",
        "AAAA 10-42-0-9.p.pod.cluster.local",
        "A 10-42-0-8.p.pod.cluster.local",
        "TXT dns-version.cluster.local",
        "A cluster.local",
        "A svc.cluster.local",
        "A d.svc.cluster.local",
        "A nowhere.svc.cluster.local",
        "A example.org",
        "A acluster.local",
    ];
    ask(
        &index(),
        &questions,
        expect![[r#"
        A 10-42-0-9.p.pod.cluster.local
          5 10.42.0.9
        AAAA fd00-42--9.p.pod.cluster.local
          5 fd00:42::9
        AAAA 10-42-0-9.p.pod.cluster.local
          NoData
        A 10-42-0-8.p.pod.cluster.local
          NoName
        TXT dns-version.cluster.local
          5 1.1.0
        A cluster.local
          NoData
        A svc.cluster.local
          NoData
        A d.svc.cluster.local
          NoData
        A nowhere.svc.cluster.local
          NoName
        A example.org
          Elsewhere
        A acluster.local
          Elsewhere
    "#]],
    );
}

#[test]
fn what_goes_leaves_nothing_behind() {
    let mut index = index();
    for name in ["web", "db", "empty", "out"] {
        index.apply(Change::ServiceDeleted { namespace: "d".into(), name: name.into() });
    }
    index.apply(Change::EndpointSliceDeleted { namespace: "d".into(), name: "db-1".into() });
    index.apply(Change::PodDeleted { namespace: "p".into(), name: "x".into() });
    let questions = [
        "A web.d.svc.cluster.local",
        "A d.svc.cluster.local",
        "A p.pod.cluster.local",
        "PTR 80.0.43.10.in-addr.arpa",
        "PTR 5.0.42.10.in-addr.arpa",
    ];
    ask(
        &index,
        &questions,
        expect![[r#"
        A web.d.svc.cluster.local
          NoName
        A d.svc.cluster.local
          NoName
        A p.pod.cluster.local
          NoName
        PTR 80.0.43.10.in-addr.arpa
          Elsewhere
        PTR 5.0.42.10.in-addr.arpa
          Elsewhere
    "#]],
    );
}

#[test]
fn an_empty_namespace_has_a_name_while_it_exists() {
    let mut index = index();
    let question = ["A bare.svc.cluster.local"];
    ask(
        &index,
        &question,
        expect![[r#"
            A bare.svc.cluster.local
              NoName
        "#]],
    );
    index.apply(Change::Namespace("bare".into()));
    ask(
        &index,
        &question,
        expect![[r#"
            A bare.svc.cluster.local
              NoData
        "#]],
    );
    index.apply(Change::NamespaceDeleted("bare".into()));
    assert!(!index.has_namespace("bare"));
}
