//! The client over the embedded runtime's own socket: both sides of the CRI, and the streams.

use cri::Client;
use futures::StreamExt as _;
use runtime::cri::*;
use runtime::{Code, ExecSession, ImageService, RuntimeService, StreamOptions};
use tasks::Tasks;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{LIMIT, World};

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|word| (*word).to_owned()).collect()
}

/// What a command says to its input, and its code.
pub(crate) async fn converse(mut session: ExecSession, input: &[u8]) -> (String, String, i32) {
    if let Some(mut stdin) = session.stdin.take() {
        stdin.write_all(input).await.unwrap();
        stdin.shutdown().await.unwrap();
    }
    let (mut out, mut err) = (String::new(), String::new());
    if let Some(mut stdout) = session.stdout.take() {
        stdout.read_to_string(&mut out).await.unwrap();
    }
    if let Some(mut stderr) = session.stderr.take() {
        stderr.read_to_string(&mut err).await.unwrap();
    }
    (out, err, session.exit.await.unwrap())
}

/// The same for every runtime: `image` has a shell, cat, echo, nc and sleep.
pub(crate) async fn a_pod(client: &Client, config: PodSandboxConfig, image: &str) {
    let version = client.version().await.unwrap();
    assert_eq!(version.runtime_api_version, "v1");
    let mut events = client.events().await.unwrap();
    let request =
        RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: String::new() };
    let sandbox = client.run_pod_sandbox(request).await.map_err(|e| e.chain()).unwrap();
    let request = CreateContainerRequest {
        pod_sandbox_id: sandbox.clone(),
        config: Some(ContainerConfig {
            metadata: Some(ContainerMetadata { name: "main".into(), attempt: 0 }),
            image: Some(ImageSpec { image: image.to_owned(), ..ImageSpec::default() }),
            command: words(&["sh", "-c", "echo logged; cat; exit 5"]),
            log_path: "main.log".into(),
            labels: [("app".to_owned(), "it".to_owned())].into(),
            stdin: true,
            stdin_once: true,
            linux: Some(LinuxContainerConfig::default()),
            ..ContainerConfig::default()
        }),
        sandbox_config: Some(config.clone()),
    };
    let id = client.create_container(request).await.map_err(|e| e.chain()).unwrap();
    client.start_container(&id).await.map_err(|e| e.chain()).unwrap();
    commands(client, &id).await;
    ports(client, &sandbox, &id).await;

    let stats = client.container_stats(&id).await.unwrap();
    assert!(stats.memory.unwrap().usage_bytes.unwrap().value > 0);
    let filter = PodSandboxStatsFilter { id: sandbox.clone(), ..Default::default() };
    assert_eq!(client.list_pod_sandbox_stats(filter).await.unwrap().len(), 1);
    let figures = client.pod_figures().await.unwrap();
    let own = figures.iter().find(|pod| pod.id == sandbox).unwrap();
    assert!(own.containers[0].used.memory > 0);
    assert_eq!(own.containers[0].labels["app"], "it");

    // Attached: what is said to the container's own program comes back, and its end is told.
    let streams = StreamOptions { stdin: true, stdout: true, stderr: true, tty: false };
    let session = client.attach(&id, streams).await.map_err(|e| e.chain()).unwrap();
    let (out, _, code) = converse(session, b"to the program\n").await;
    assert!(out.ends_with("to the program\n"), "{out:?}");
    assert_eq!(code, 0);
    let mut kinds = Vec::new();
    while !kinds.contains(&ContainerEventType::Stopped) {
        let event = events.next().await.unwrap().map_err(|e| e.chain()).unwrap();
        if event.container_id == id {
            kinds.push(event.container_event_type());
        }
    }
    let status = client.container_status(&id, false).await.unwrap().status.unwrap();
    assert_eq!((status.state(), status.exit_code), (ContainerState::Exited, 5));
    let log = std::path::Path::new(&config.log_directory).join("main.log");
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains(" stdout F logged\n") && log.contains("to the program"), "{log}");

    client.remove_pod_sandbox(&sandbox).await.map_err(|e| e.chain()).unwrap();
    let gone = client.container_status(&id, false).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound, "{}", gone.chain());
    // What is gone already is as it should be.
    client.stop_container(&id, 1).await.unwrap();
    client.remove_container(&id).await.unwrap();
    client.remove_pod_sandbox(&sandbox).await.unwrap();
}

async fn commands(client: &Client, id: &str) {
    let run = |cmd: &[&str], timeout| {
        client.exec_sync(ExecSyncRequest { container_id: id.into(), cmd: words(cmd), timeout })
    };
    let done = run(&["sh", "-c", "echo out; echo err >&2; exit 3"], 10).await.unwrap();
    assert_eq!((&done.stdout[..], &done.stderr[..]), (&b"out\n"[..], &b"err\n"[..]));
    assert_eq!(done.exit_code, 3);
    let late = run(&["sleep", "60"], 1).await.unwrap_err();
    assert!(matches!(late, runtime::Error::ExecTimeout(1)), "{}", late.chain());

    let streams = StreamOptions { stdin: true, stdout: true, stderr: true, tty: false };
    let script = words(&["sh", "-c", "cat; echo done >&2; exit 7"]);
    let session = client.exec(id, script, streams).await.map_err(|e| e.chain()).unwrap();
    // More than any buffer on the way: nothing may be lost at the end.
    let input = "x".repeat(300_000);
    let said = tokio::time::timeout(LIMIT, converse(session, input.as_bytes())).await.unwrap();
    assert_eq!((said.0.len(), &*said.1, said.2), (input.len(), "done\n", 7));

    let terminal = StreamOptions { stdin: true, stdout: true, stderr: false, tty: true };
    let session = client
        .exec(
            id,
            words(&["sh", "-c", "read a; echo <$a>".replace('<', "[").replace('>', "]").as_str()]),
            terminal,
        )
        .await;
    let mut session = session.map_err(|e| e.chain()).unwrap();
    session.resize.send(runtime::TerminalSize { width: 90, height: 30 }).await.unwrap();
    session.stdin.as_mut().unwrap().write_all(b"typed\n").await.unwrap();
    let mut out = String::new();
    session.stdout.take().unwrap().read_to_string(&mut out).await.unwrap();
    assert!(out.contains("[typed]"), "{out:?}");
    assert_eq!(session.exit.await.unwrap(), 0);

    let nobody = client.exec("nobody", words(&["true"]), streams).await;
    assert_eq!(nobody.err().unwrap().code(), Code::NotFound);
}

async fn ports(client: &Client, sandbox: &str, id: &str) {
    let streams = StreamOptions { stdout: true, ..StreamOptions::default() };
    let listen = words(&["sh", "-c", "echo ready; echo hello from the pod | nc -l -p 4000"]);
    let mut server = client.exec(id, listen, streams).await.map_err(|e| e.chain()).unwrap();
    let mut ready = [0; 6];
    server.stdout.as_mut().unwrap().read_exact(&mut ready).await.unwrap();
    let heard = async {
        loop {
            // The program says that it is ready just before it listens.
            let mut stream = client.port_forward(sandbox, 4000).await.unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            if !text.is_empty() {
                return text;
            }
        }
    };
    assert_eq!(tokio::time::timeout(LIMIT, heard).await.unwrap(), "hello from the pod\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_runtime_is_one_of_many_to_its_client() {
    let world = World::new().await;
    let tasks = Tasks::new();
    let endpoint = format!("unix://{}", world.dir.path().join("cri.sock").display());
    let client = Client::new(&endpoint, &tasks).unwrap();
    let config = PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: "pod".into(),
            uid: "u".into(),
            namespace: "default".into(),
            attempt: 0,
        }),
        log_directory: world.dir.path().join("logs").to_string_lossy().into_owned(),
        ..PodSandboxConfig::default()
    };
    a_pod(&client, config, "busybox").await;
    let images = client.list_images(ImageFilter::default()).await.unwrap();
    assert_eq!(images.len(), 1);
    assert!(client.image_fs_info().await.unwrap().image_filesystems.len() == 1);
    let spec = ImageSpec { image: "nothing:here".into(), ..ImageSpec::default() };
    assert!(client.image_status(spec, false).await.unwrap().image.is_none());
    tasks.cancel();
}

#[tokio::test]
async fn a_socket_without_a_runtime_is_unavailable() {
    let tasks = Tasks::new();
    let client = Client::new("unix:///nowhere/cri.sock", &tasks).unwrap();
    let refused = client.version().await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.chain().starts_with("the container runtime cannot be reached"));
}
