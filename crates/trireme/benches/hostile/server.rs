//! The server under attack, in a cgroup with a limit, and connections to it.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use socket2::{Domain, Socket, Type};

pub(crate) const ADMIN: &str = "admin-token";
pub(crate) const USER: &str = "user-token";
/// Longest wait of an attacker for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Server {
    child: Child,
    cgroup: PathBuf,
    at: SocketAddr,
    tls: Arc<ClientConfig>,
    _folder: tempfile::TempDir,
}

fn is_v1() -> bool {
    fs::exists("/sys/fs/cgroup/memory/cgroup.procs").unwrap_or(false)
}

impl Server {
    pub(crate) fn start(memory: u64) -> Server {
        let folder = tempfile::tempdir().expect("a folder");
        let parent = if is_v1() { "/sys/fs/cgroup/memory" } else { "/sys/fs/cgroup" };
        let cgroup = PathBuf::from(format!("{parent}/trireme-hostile-{}", std::process::id()));
        fs::create_dir(&cgroup).expect("root rights");
        let limit = if is_v1() { "memory.limit_in_bytes" } else { "memory.max" };
        fs::write(cgroup.join(limit), memory.to_string()).expect("a memory controller");
        let tokens = format!("{ADMIN},admin,1,\"system:masters\"\n{USER},user,2,\"users\"\n");
        fs::write(folder.path().join("tokens"), tokens).expect("written");
        // The shell joins the cgroup and becomes the server.
        let script = "echo 0 > \"$1\"/cgroup.procs; shift; exec \"$@\"";
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]).arg(&cgroup).arg(env!("CARGO_BIN_EXE_trireme"));
        command.args(["kube-apiserver", "--secure-port=0", "--bind-address=127.0.0.1"]);
        for (flag, name) in
            [("--cert-dir", "pki"), ("--data-dir", "data"), ("--token-auth-file", "tokens")]
        {
            command.arg(flag).arg(folder.path().join(name));
        }
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the server starts");
        let mut said = BufReader::new(child.stderr.take().expect("piped"));
        let mut line = String::new();
        let at = loop {
            line.clear();
            assert!(said.read_line(&mut line).expect("readable") > 0, "the server ended");
            if let Some(at) = line.trim().strip_prefix("serving on https://") {
                break at.parse().expect("an address");
            }
        };
        std::thread::spawn(move || io::copy(&mut said, &mut io::sink()));
        let tls = tls(&fs::read(folder.path().join("pki/ca.crt")).expect("an authority"));
        Server { child, cgroup, at, tls, _folder: folder }
    }

    /// What the server took at most, and takes now.
    pub(crate) fn memory(&self) -> String {
        let text = fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let text = text.expect("the server lives");
        let of = |name: &str| {
            text.lines().find_map(|line| line.strip_prefix(name)).map_or("", str::trim)
        };
        format!("memory at most {}, now {}", of("VmHWM:"), of("VmRSS:"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap_or_default();
        self.child.wait().expect("a killed process ends");
        fs::remove_dir(&self.cgroup).unwrap_or_default();
    }
}

fn tls(authority: &[u8]) -> Arc<ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority).expect("PEM")).expect("a root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has them")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

/// An HTTP/1.1 connection.
pub(crate) struct Connection(StreamOwned<ClientConnection, TcpStream>);

impl Connection {
    pub(crate) fn open(server: &Server) -> io::Result<Connection> {
        Connection::open_from(server, Ipv4Addr::LOCALHOST)
    }

    /// A connection from this address of the loopback device.
    pub(crate) fn open_from(server: &Server, source: Ipv4Addr) -> io::Result<Connection> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&SocketAddr::from((source, 0)).into())?;
        socket.connect(&server.at.into())?;
        let tcp = TcpStream::from(socket);
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(PATIENCE))?;
        tcp.set_write_timeout(Some(PATIENCE))?;
        let name = "127.0.0.1".try_into().map_err(io::Error::other)?;
        let tls = ClientConnection::new(server.tls.clone(), name).map_err(io::Error::other)?;
        Ok(Connection(StreamOwned::new(tls, tcp)))
    }

    /// Sends a request's head and body.
    pub(crate) fn send(
        &mut self,
        token: &str,
        method: &str,
        path: &str,
        kind: &str,
        body: &[u8],
    ) -> io::Result<()> {
        write!(
            self.0,
            "{method} {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-type: {kind}\r\naccept: {}\r\ncontent-length: {}\r\n\r\n",
            if method == "GET" && !kind.is_empty() { kind } else { "*/*" },
            body.len()
        )?;
        self.0.write_all(body)?;
        self.0.flush()
    }

    /// Sends a request and reads its answer, which says how long it is or ends the connection.
    pub(crate) fn ask(
        &mut self,
        token: &str,
        method: &str,
        path: &str,
        kind: &str,
        body: &[u8],
    ) -> io::Result<u16> {
        self.send(token, method, path, kind, body)?;
        let (mut text, mut piece, mut head, mut left) = (Vec::new(), [0; 16 * 1024], 0, 0usize);
        while head == 0 || left > 0 {
            let count = self.0.read(&mut piece)?;
            if count == 0 {
                break;
            }
            if head > 0 {
                left = left.saturating_sub(count);
                continue;
            }
            text.extend_from_slice(&piece[..count]);
            if let Some(end) = text.windows(4).position(|four| four == b"\r\n\r\n") {
                head = end + 4;
                let lines = String::from_utf8_lossy(&text[..head]).to_lowercase();
                let length = lines.lines().find_map(|line| line.strip_prefix("content-length: "));
                let length: usize = length.and_then(|text| text.parse().ok()).unwrap_or(usize::MAX);
                left = length.saturating_sub(text.len() - head);
            }
        }
        let code = text.get(9..12).and_then(|code| std::str::from_utf8(code).ok());
        code.and_then(|code| code.parse().ok()).ok_or_else(|| io::Error::other("no answer"))
    }
}
