//! What an ordinary user sends: bodies that nest, expand or are merely as large as they may be, and
//! connections that are held.

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::server::{ADMIN, Connection, Server, USER};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
/// Where attackers are: sources share the places for connections fairly, so that others keep theirs.
const SOURCE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// Connections that one attack holds.
const HELD: usize = 200;
const HOLD: Duration = Duration::from_secs(2);

/// Gives the user the rights of an ordinary one, and something to patch.
pub(crate) fn prepare(server: &Server) {
    let mut connection = Connection::open(server).expect("a connection");
    let mut make = |path: &str, body: &str| {
        let code = connection.ask(ADMIN, "POST", path, "application/json", body.as_bytes());
        assert_eq!(code.expect("an answer"), 201, "{path}");
    };
    make(
        "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
        r#"{"metadata":{"name":"user"},"subjects":[{"kind":"User","name":"user","apiGroup":"rbac.authorization.k8s.io"}],"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"edit"}}"#,
    );
    make(MAPS, r#"{"metadata":{"name":"target"},"data":{"a":"x"}}"#);
}

/// One attack; which, its number says.
pub(crate) fn run(server: &Server, turn: usize) {
    // A server that closes the connection, or is slow, has defended itself.
    drop(match turn % 2 {
        0 => body(server, turn / 2),
        _ => hold(server, turn / 2),
    });
}

fn body(server: &Server, turn: usize) -> std::io::Result<()> {
    let target = format!("{MAPS}/target?fieldManager=m&force=true");
    let wide_target = format!("{DEPLOYMENTS}/wide?fieldManager=m{}&force=true", turn % 3);
    let (method, path, kind, body): (&str, &str, &str, Vec<u8>) = match turn % 14 {
        0 => ("POST", MAPS, "application/json", vec![b'['; 98 * 1024]),
        1 => ("POST", MAPS, "application/yaml", vec![b'['; 3_000_000]),
        2 => ("POST", MAPS, "application/yaml", aliases()),
        3 => ("PATCH", &target, "application/json-patch+json", copies()),
        4 => ("POST", MAPS, "application/json", wide(r#"{"a":0}"#)),
        5 => ("POST", MAPS, "application/json", unknown()),
        6 => ("PATCH", &target, "application/apply-patch+yaml", wide("{a: 0}")),
        7 => ("POST", MAPS, "application/cbor", vec![0x81; 1_000_000]),
        8 => ("POST", MAPS, "application/json", br#"{"a":"#.repeat(500_000)),
        9 => ("POST", MAPS, "application/json", wide("0")),
        10 => ("POST", DEPLOYMENTS, "application/json", deployment(turn)),
        11 => ("PATCH", &wide_target, "application/apply-patch+yaml", deployment(turn)),
        12 => (
            "PATCH",
            &wide_target,
            "application/merge-patch+json",
            br#"{"spec":{"replicas":1}}"#.to_vec(),
        ),
        _ => (
            "GET",
            &format!("{DEPLOYMENTS}?limit=500"),
            "application/json;as=Table;g=meta.k8s.io;v=v1",
            Vec::new(),
        ),
    };
    Connection::open_from(server, SOURCE)?.ask(USER, method, path, kind, &body).map(drop)
}

fn hold(server: &Server, turn: usize) -> std::io::Result<()> {
    let mut held = Vec::new();
    for _ in 0..HELD {
        let mut connection = Connection::open_from(server, SOURCE)?;
        match turn % 4 {
            // Documents that nobody reads.
            0 => connection.send(USER, "GET", "/openapi/v2", "", b"")?,
            1 => connection.send(USER, "GET", "/api/v1/pods?watch=true", "", b"")?,
            2 => connection.send(USER, "GET", "/apis", "", b"")?,
            // Nothing at all, but a handshake.
            _ => connection.send(USER, "GET", "/version", "", b"")?,
        }
        held.push(connection);
    }
    std::thread::sleep(HOLD);
    Ok(())
}

fn aliases() -> Vec<u8> {
    let mut text = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x]\n");
    for n in 1..12 {
        text += &format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 9].join(","));
    }
    text.into_bytes()
}

fn copies() -> Vec<u8> {
    let one = r#"{"op":"copy","from":"/data","path":"/data/b"}"#;
    format!("[{}]", vec![one; 30].join(",")).into_bytes()
}

/// A list as long as a body may be.
fn wide(item: &str) -> Vec<u8> {
    let count = 2_900_000 / (item.len() + 1);
    let list = vec![item; count].join(",");
    format!(r#"{{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {{"name": "w"}}, "data": [{list}]}}"#)
        .into_bytes()
}

/// A valid object of as many small maps as etcd takes, in another order each time.
fn deployment(turn: usize) -> Vec<u8> {
    const COUNT: usize = 20_000;
    let variables: Vec<String> =
        (0..COUNT).map(|n| format!(r#"{{"name":"A{}"}}"#, (n + turn * 7919) % COUNT)).collect();
    format!(
        r#"{{"apiVersion":"apps/v1","kind":"Deployment","metadata":{{"name":"wide"}},"spec":{{"replicas":0,"selector":{{"matchLabels":{{"a":"b"}}}},"template":{{"metadata":{{"labels":{{"a":"b"}}}},"spec":{{"containers":[{{"name":"c","image":"x","env":[{}]}}]}}}}}}}}"#,
        variables.join(",")
    )
    .into_bytes()
}

fn unknown() -> Vec<u8> {
    let fields: Vec<String> = (0..100_000).map(|n| format!(r#""f{n}":1"#)).collect();
    format!(
        r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"u"}},{}}}"#,
        fields.join(",")
    )
    .into_bytes()
}
