//! A process on its way into a container: CVE-2016-9962, CVE-2019-5736, CVE-2024-21626.
use super::*;

const SECRET: &str = "belongs-to-another-pod";

/// What the watcher got while processes came in.
async fn watched(node: &Node, capabilities: &[&str], user: i64, cmd: &[&str]) -> String {
    let other = KeyValue { key: "SECRET".to_owned(), value: SECRET.as_bytes().to_vec() };
    let sandbox = node.sandbox().await;
    node.start(&sandbox, ContainerConfig { envs: vec![other], ..sh("exec sleep 1000") }).await;
    let script = format!("exec /attacker watch {SECRET}");
    let config = attacker(&script, |c| {
        added(c, capabilities);
        c.run_as_user = Some(Int64Value { value: user });
        c.seccomp = Some(SecurityProfile::default());
    });
    let id = node.start(&sandbox, config).await;
    wait_for(node, &id, "/tmp/watching").await;
    let mut events = node.rt().events().await.unwrap();
    let cmd: Vec<String> = cmd.iter().map(|c| (*c).to_owned()).collect();
    for _ in 0..200 {
        let request = ExecSyncRequest { container_id: id.clone(), cmd: cmd.clone(), timeout: 20 };
        node.rt().exec_sync(request).await.map_err(|e| e.chain()).unwrap();
    }
    node.exec(&id, "touch /tmp/stop").await;
    crate::harness::ended(&mut events, &id).await;
    let text = log_text(&node.status(&id).await.log_path);
    println!("{capabilities:?} {user}: {text}");
    text
}

/// How often the watcher counted something.
fn count(text: &str, name: &str) -> u64 {
    let mut words = text.split_whitespace().skip_while(|w| *w != name);
    words.nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn execs_are_closed_to_their_container() {
    let node = Node::new().await;
    for user in [0, 1000] {
        let text = watched(&node, &[], user, &["true"]).await;
        assert!(!text.contains("GOT"), "{text}");
        assert!(count(&text, "SEEN") > 0 && count(&text, "REFUSED") > 0, "{text}");
    }
}

/// A container that may look into every process finds nothing there that is not its own.
#[tokio::test(flavor = "multi_thread")]
async fn execs_have_nothing_even_for_tracers() {
    let node = Node::new().await;
    let text = watched(&node, &["SYS_PTRACE"], 0, &["true"]).await;
    assert!(!text.contains("GOT"), "{text}");
    assert!(count(&text, "EARLY") > 0, "no process was met on its way: {text}");
}

/// CVE-2019-5736: a script whose interpreter is the program that starts it.
#[tokio::test(flavor = "multi_thread")]
async fn the_hosts_program_cannot_be_written_to() {
    let node = Node::new().await;
    let program = example("supervisor");
    let before = std::fs::metadata(&program).unwrap();
    let content = std::fs::read(&program).unwrap();
    let cmd = "echo '#!/proc/self/exe' > /tmp/x; chmod 755 /tmp/x; exec /tmp/x";
    for capabilities in [&["SYS_PTRACE"][..], &["SYS_PTRACE", "SYS_ADMIN", "SYS_RESOURCE"]] {
        let text = watched(&node, capabilities, 0, &["sh", "-c", cmd]).await;
        assert!(!text.contains("GOT"), "{text}");
        let text = watched(&node, capabilities, 0, &["/proc/self/exe"]).await;
        assert!(!text.contains("GOT"), "{text}");
        assert!(count(&text, "FOREIGN") > 0, "the program was never seen: {text}");
    }
    let after = std::fs::metadata(&program).unwrap();
    assert_eq!(
        (before.mtime(), before.ctime_nsec(), before.mode()),
        (after.mtime(), after.ctime_nsec(), after.mode())
    );
    assert!(content == std::fs::read(&program).unwrap());
}

/// The program that starts containers, run by a container as its own, is only a program.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_may_run_what_started_it() {
    let node = Node::new().await;
    let sandbox = node.sandbox().await;
    let config = ContainerConfig {
        command: vec!["/proc/self/exe".to_owned(), "--state-dir".to_owned(), "/tmp".to_owned()],
        ..sh("")
    };
    let id = node.start(&sandbox, config).await;
    let seen = node.exec(&id, "ls /proc/1/fd; ls /tmp; readlink /proc/1/root").await.1;
    assert!(seen.contains("supervisor.sock") && !seen.contains("/var"), "{seen}");
    node.rt().stop_container(&id, 0).await.unwrap();
    // The node's own one is unmoved.
    assert_eq!(node.script(&sandbox, sh("echo on")).await.1, "on\n");
}

/// Descriptors 0 to 2 and nothing else, whoever starts it: runc's leak of CVE-2024-21626.
#[tokio::test(flavor = "multi_thread")]
async fn three_descriptors_and_no_more() {
    let node = Node::new().await;
    let sandbox = node.sandbox().await;
    let list = "for n in /proc/self/fd/*; do echo ${n##*/}; done";
    // The shell's own directory listing is the fourth.
    let (_, text) = node.script(&sandbox, sh(list)).await;
    assert_eq!(text, "0\n1\n2\n3\n");
    let id = node.start(&sandbox, sh("exec sleep 1000")).await;
    assert_eq!(node.exec(&id, list).await.1, "0\n1\n2\n3\n");
    for n in 0..40 {
        let config = ContainerConfig {
            working_dir: format!("/proc/self/fd/{n}"),
            ..sh("cd ../../../..; ls -d var/lib etc/machine-id; pwd")
        };
        match node.create(&sandbox, config).await {
            Err(_) => {}
            Ok(id) => {
                let started = node.rt().start_container(&id).await;
                assert!(started.is_err(), "descriptor {n} is a directory");
            }
        }
    }
}
