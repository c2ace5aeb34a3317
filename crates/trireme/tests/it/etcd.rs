//! Two API servers on one real etcd: each shows what the other stored, both outlive its absence, and
//! they give nothing out twice.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::roles::Server;

/// An etcd in a folder, on a port of its own.
struct Etcd {
    process: Child,
    folder: tempfile::TempDir,
    url: String,
}

fn serve(folder: &Path, url: &str) -> Child {
    Command::new("etcd")
        .arg("--data-dir")
        .arg(folder)
        .args(["--listen-peer-urls", "http://127.0.0.1:0"])
        .args(["--listen-client-urls", url, "--advertise-client-urls", url])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("etcd is installed (cargo xtask test does it)")
}

impl Etcd {
    fn start() -> Etcd {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        drop(listener);
        let folder = tempfile::tempdir().expect("a folder");
        Etcd { process: serve(folder.path(), &url), folder, url }
    }

    /// How many node ports are taken, by the object that servers share: a bit each, behind the range.
    fn taken_ports(&self) -> u32 {
        let mut etcdctl = Command::new("etcdctl");
        etcdctl.env("ETCDCTL_API", "3").args(["--endpoints", &self.url, "get"]);
        etcdctl.args(["/registry/ranges/servicenodeports", "--print-value-only"]);
        let value = etcdctl.output().expect("etcdctl is installed").stdout;
        let range = b"30000-32767";
        let at = value.windows(range.len()).position(|w| w == range).expect("a range");
        let data = &value[at + range.len()..];
        assert_eq!(data[0], 0x1a, "the data's tag");
        // Its length takes one byte or two.
        let (length, start) = match data[1] {
            short @ 0..0x80 => (usize::from(short), 2),
            low => (usize::from(low & 0x7f) | usize::from(data[2]) << 7, 3),
        };
        data[start..start + length].iter().map(|byte| byte.count_ones()).sum()
    }

    fn kill(&mut self) {
        self.process.kill().expect("killed");
        self.process.wait().expect("reaped");
    }

    fn restart(&mut self) {
        self.process = serve(self.folder.path(), &self.url);
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // It may be dead already, which is what is wanted.
        self.process.kill().unwrap_or_default();
        drop(self.process.wait());
    }
}

#[test]
fn two_servers_share_an_etcd_and_outlive_its_absence() {
    let mut etcd = Etcd::start();
    let flag = format!("--etcd-servers={}", etcd.url);
    let (one, two) = (Server::start_with(&[&flag]), Server::start_with(&[&flag]));
    one.eventually(&["create", "namespace", "shared"], |_| true);
    // At once: what one acknowledged, the other shows to whoever asks next.
    let seen = two.try_kubectl(&["get", "namespace", "shared", "-o", "name"]);
    assert_eq!(String::from_utf8_lossy(&seen.stdout), "namespace/shared\n");
    let again = two.try_kubectl(&["create", "namespace", "shared"]);
    assert!(String::from_utf8_lossy(&again.stderr).contains("AlreadyExists"), "{again:?}");
    let create = ["-n", "shared", "create", "configmap", "settings", "--from-literal=a=1"];
    two.eventually(&create, |_| true);
    let patch = ["-n", "shared", "patch", "configmap", "settings", "-p", r#"{"data":{"b":"2"}}"#];
    one.eventually(&patch, |_| true);
    let data = ["-n", "shared", "get", "configmap", "settings", "-o", "jsonpath={.data}"];
    let shown = String::from_utf8_lossy(&two.try_kubectl(&data).stdout).into_owned();
    assert_eq!(shown, r#"{"a":"1","b":"2"}"#);

    etcd.kill();
    let refused = one.try_kubectl(&["create", "namespace", "lost"]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && told.contains("etcd"), "{told}");
    etcd.restart();
    one.eventually(&["create", "namespace", "found"], |_| true);
    two.eventually(&["get", "namespace", "found", "-o", "name"], |name| !name.is_empty());
    let shown = String::from_utf8_lossy(&two.try_kubectl(&data).stdout).into_owned();
    assert_eq!(shown, r#"{"a":"1","b":"2"}"#);
}

#[test]
fn etcd_flags_alone_are_refused() {
    let told = crate::roles::refusal(&["kube-apiserver", "--etcd-cafile=/x"]);
    assert!(told.contains("--etcd-servers"), "{told}");
}

/// Services that need an address, a node port and every fourth one a port for health checks, too.
fn services(name: &str, count: usize) -> String {
    let service = |n: usize| {
        let kind = match n % 4 {
            0 => "type: LoadBalancer, externalTrafficPolicy: Local",
            _ => "type: NodePort",
        };
        format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}-{n}, labels: {{made: {name}}}}}\n\
             spec: {{{kind}, ports: [{{port: 80}}]}}\n"
        )
    };
    (0..count).map(service).collect()
}

/// A kubectl that creates them, one after the other.
fn creating(server: &Server, text: &str) -> Child {
    let mut command = server.kubectl_command(&["create", "-f", "-"]);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("kubectl runs");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(text.as_bytes()).expect("kubectl reads it");
    child
}

/// What the servers must agree on; the number of Services, `kubernetes` left out.
fn check(etcd: &Etcd, server: &Server) -> usize {
    let words = |args: &[&str], path: &str| -> Vec<String> {
        let path = format!("jsonpath={path}");
        let shown = server.eventually(&[args, &["-o", &path]].concat(), |_| true);
        shown.split_whitespace().map(str::to_owned).collect()
    };
    let ips = words(&["get", "services"], "{.items[*].spec.clusterIP}");
    let distinct: BTreeSet<&String> = ips.iter().collect();
    assert_eq!(distinct.len(), ips.len(), "no address twice");
    let addresses = words(&["get", "ipaddresses"], "{.items[*].metadata.name}");
    for ip in &ips {
        assert!(addresses.contains(ip), "{ip} is booked: {addresses:?}");
    }
    let ports = ["{.items[*].spec.ports[*].nodePort}", "{.items[*].spec.healthCheckNodePort}"];
    let ports: Vec<String> =
        ports.iter().flat_map(|path| words(&["get", "services"], path)).collect();
    let distinct: BTreeSet<&String> = ports.iter().collect();
    assert_eq!(distinct.len(), ports.len(), "no port twice");
    assert!(etcd.taken_ports() as usize >= ports.len(), "every port is booked");
    ips.len() - 1
}

#[test]
fn two_servers_give_nothing_out_twice_and_take_everything_back() {
    let etcd = Etcd::start();
    let flag = format!("--etcd-servers={}", etcd.url);
    let (one, mut two) = (Server::start_with(&[&flag]), Server::start_with(&[&flag]));
    let names = ["a", "b", "c", "d"];
    let creators: Vec<Child> = names
        .iter()
        .zip([&one, &two, &one, &two])
        .map(|(name, server)| creating(server, &services(name, 12)))
        .collect();
    for creator in creators {
        let output = creator.wait_with_output().expect("kubectl ends");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(check(&etcd, &one), 48);
    assert_eq!(etcd.taken_ports(), 48 + 12);
    // What one gave out the other takes back.
    for (name, server) in names.iter().zip([&two, &one, &one, &two]) {
        let made = format!("made={name}");
        server.eventually(&["delete", "services", "-l", &made], |_| true);
    }
    assert_eq!(etcd.taken_ports(), 0);
    let left = ["get", "ipaddresses", "-o", "name"];
    let own = |names: &str| names.trim() == "ipaddress.networking.k8s.io/10.43.0.1";
    one.eventually(&left, own);

    // One that asks for what another has is refused, by whichever server.
    let wanted = "apiVersion: v1\nkind: Service\nmetadata: {name: NAME}\n\
        spec: {type: NodePort, clusterIP: 10.43.0.9, ports: [{port: 80, nodePort: 30009}]}\n";
    let first = creating(&one, &wanted.replace("NAME", "first")).wait_with_output();
    assert!(first.expect("kubectl ends").status.success());
    let second = creating(&two, &wanted.replace("NAME", "second")).wait_with_output();
    let told = String::from_utf8_lossy(&second.expect("kubectl ends").stderr).into_owned();
    assert!(told.contains("provided IP is already allocated"), "{told}");

    // Killed in the middle: what is stored is booked, and the others go on.
    let mut creator = creating(&two, &services("e", 200));
    let enough = |names: &str| names.lines().count() > 5;
    one.eventually(&["get", "services", "-l", "made=e", "-o", "name"], enough);
    two.kill();
    creator.kill().expect("killed");
    creator.wait().expect("reaped");
    let two = Server::start_with(&[&flag]);
    let more = creating(&two, &services("f", 12)).wait_with_output().expect("kubectl ends");
    assert!(more.status.success(), "{}", String::from_utf8_lossy(&more.stderr));
    assert!(check(&etcd, &one) > 12);
    // What somebody took away comes back, and is told.
    one.eventually(&["delete", "ipaddress", "10.43.0.9"], |_| true);
    two.eventually(&["get", "ipaddress", "10.43.0.9", "-o", "name"], |name| !name.is_empty());
    let reasons = ["get", "events", "-o", "jsonpath={.items[*].reason}"];
    one.eventually(&reasons, |reasons| reasons.contains("ClusterIPNotAllocated"));
}

#[test]
fn the_endpoints_are_of_the_servers_that_live() {
    let etcd = Etcd::start();
    let flag = format!("--etcd-servers={}", etcd.url);
    let server = |n: u8| {
        Server::start_with(&[&flag, &format!("--advertise-address=192.0.2.{n}"), "--event-ttl=1s"])
    };
    let (one, mut two, mut three) = (server(1), server(2), server(3));
    let endpoints =
        ["get", "endpoints", "kubernetes", "-o", "jsonpath={.subsets[0].addresses[*].ip}"];
    let is = |wanted: &'static str| move |shown: &str| shown == wanted;
    one.eventually(&endpoints, is("192.0.2.1 192.0.2.2 192.0.2.3"));
    let slice =
        ["get", "endpointslice", "kubernetes", "-o", "jsonpath={.endpoints[*].addresses[0]}"];
    one.eventually(&slice, is("192.0.2.1 192.0.2.2 192.0.2.3"));
    three.terminate();
    let shown = one.try_kubectl(&endpoints).stdout;
    assert_eq!(String::from_utf8_lossy(&shown), "192.0.2.1 192.0.2.2", "it took its own out");
    two.kill();
    one.eventually(&endpoints, is("192.0.2.1"));
    one.eventually(&slice, is("192.0.2.1"));

    // Events go by themselves.
    let event = "{apiVersion: v1, kind: Event, metadata: {name: e}, \
        involvedObject: {kind: Pod, namespace: default, name: p}, reason: Test}";
    let created = creating(&one, event).wait_with_output().expect("kubectl ends");
    assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stderr));
    one.eventually(&["get", "events", "-o", "name"], |names| names.is_empty());
}
