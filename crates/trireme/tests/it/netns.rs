//! A network namespace of the test's own that plays the host; gone when dropped.

use std::process::{Child, Command, Stdio};

/// Kept alive by a process that only waits; killing it removes the namespace and all links in it.
pub(crate) struct Netns(Child);

impl Netns {
    /// An empty namespace with a loopback.
    pub(crate) fn new() -> Netns {
        // `cat` waits for an input that never comes, and ends with the test's process at the latest.
        let script = "ip link set lo up && echo ready && exec cat";
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", script]);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut ns = Netns(child.expect("unshare runs"));
        let mut said = String::new();
        let out = ns.0.stdout.take().expect("piped");
        std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut said).expect("a line");
        assert_eq!(said, "ready\n");
        ns
    }

    /// A host with an address, a default route, and an "internet" behind it that knows only the
    /// host's address.
    pub(crate) fn host_and_internet() -> (Netns, Netns) {
        let (host, internet) = (Netns::new(), Netns::new());
        let peer = internet.0.id().to_string();
        host.ip(&["link", "add", "wan", "type", "veth", "peer", "name", "wan", "netns", &peer]);
        for (ns, address) in [(&host, "192.0.2.1/24"), (&internet, "192.0.2.2/24")] {
            ns.ip(&["address", "add", address, "dev", "wan"]);
            ns.ip(&["link", "set", "wan", "up"]);
        }
        host.ip(&["route", "add", "default", "via", "192.0.2.2"]);
        (host, internet)
    }

    /// A command that runs inside.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args([&format!("--net=/proc/{}/ns/net", self.0.id()), "--", program]);
        command
    }

    /// Runs a command inside, which must succeed; its output.
    pub(crate) fn run(&self, program: &str, args: &[&str]) -> String {
        let output = self.command(program).args(args).output().expect("nsenter runs");
        assert!(output.status.success(), "{program} {args:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub(crate) fn ip(&self, args: &[&str]) -> String {
        self.run("ip", args)
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        self.0.kill().unwrap_or_default();
        self.0.wait().expect("a killed process ends");
    }
}
