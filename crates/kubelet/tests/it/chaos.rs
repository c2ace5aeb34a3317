//! Agent, supervisor and containers are killed at random, and pods are deleted and made anew; when that
//! ends, every pod comes back, and nothing of those that are gone is left. Needs root.
//!
//! One minute; `TRIREME_CHAOS_SECONDS` makes it longer, `TRIREME_CHAOS_SEED` repeats a run.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use client::{Client, Tasks};
use kubelet::{Deps, Kubelet, KubeletConfig, PlainDialer, SystemMasters};
use runtime::cgroup::Hierarchies;
use runtime::cri::ContainerFilter;
use runtime::{Config, Embedded, LoopbackOnly, RuntimeService};
use serde_json::{Value, json};

use crate::api::FakeApi;
use crate::real::{busybox, example};

/// How long everything may take to be well again.
const LIMIT: Duration = Duration::from_secs(60);
const PODS: usize = 6;

/// Marsaglia's xorshift: the same numbers for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// The agent in a runtime of its own, so that it can be stopped wherever it is.
struct Agent {
    threads: tokio::runtime::Runtime,
    runtime: Arc<Embedded>,
}

struct World {
    api: FakeApi,
    config: Config,
    dir: tempfile::TempDir,
    agent: Option<Agent>,
    /// How often each pod was made.
    made: [u32; PODS],
}

fn threads() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn path(index: usize) -> String {
    format!("/api/v1/namespaces/default/pods/p{index}")
}

impl World {
    fn new() -> World {
        let dir = tempfile::Builder::new().prefix("trireme-chaos-").tempdir_in("/var/tmp").unwrap();
        let mut config = Config::new(dir.path().join("lib"), dir.path().join("run"));
        let own = dir.path().file_name().unwrap().to_str().unwrap().to_owned();
        config.cgroup_parent = format!("/{own}");
        config.supervisor_command = vec![example("supervisor").into()];
        World { api: FakeApi::new(), config, dir, agent: None, made: [0; PODS] }
    }

    fn settings(&self) -> KubeletConfig {
        let mut settings = KubeletConfig::new("n1");
        settings.eviction = kubelet::Thresholds::none().into();
        settings.root_dir = self.dir.path().join("kubelet");
        settings.log_dir = self.dir.path().join("logs");
        settings.cgroup_root = format!("{}/kubepods", self.config.cgroup_parent);
        settings.node_ips = vec!["127.0.0.1".parse().unwrap()];
        // What is killed is to come back soon.
        settings.restart_max = Duration::from_millis(200);
        settings
    }

    fn start_agent(&mut self) {
        let threads = threads();
        let (config, settings) = (self.config.clone(), self.settings());
        let client = Client::new(Arc::new(self.api.clone()));
        let started = async move {
            let runtime = Embedded::open(config, Arc::new(LoopbackOnly)).await;
            let runtime = Arc::new(runtime.map_err(|e| e.chain()).unwrap());
            runtime.images().build_static(&busybox()).unwrap();
            let deps = Deps {
                client,
                images: runtime.clone(),
                runtime: runtime.clone(),
                dialer: Arc::new(PlainDialer),
                authorizer: Arc::new(SystemMasters),
                services: None,
            };
            let tasks = Tasks::new();
            let kubelet = Kubelet::new(settings, deps, &tasks).unwrap();
            tokio::spawn(async move {
                kubelet.run().await;
                drop(tasks);
            });
            runtime
        };
        let runtime = threads.block_on(started);
        self.agent = Some(Agent { threads, runtime });
    }

    /// Ends the agent without a word: whatever it does ends where it waits.
    fn kill_agent(&mut self) {
        let Agent { threads, runtime } = self.agent.take().unwrap();
        threads.shutdown_timeout(Duration::from_secs(10));
        drop(runtime);
    }

    fn make(&mut self, index: usize) {
        self.made[index] += 1;
        let uid = format!("u{index}-{}", self.made[index]);
        let container = |name: &str| {
            json!({
                "name": name, "image": "busybox", "imagePullPolicy": "IfNotPresent",
                "command": ["sh", "-c", "while true; do sleep 1000; done"],
                "volumeMounts": [{"name": "v", "mountPath": "/v"}, {"name": "m", "mountPath": "/m"}],
            })
        };
        let mut spec = json!({
            "nodeName": "n1", "restartPolicy": "Always", "terminationGracePeriodSeconds": 0,
            "containers": [container("a")],
            "volumes": [{"name": "v", "emptyDir": {}}, {"name": "m", "emptyDir": {"medium": "Memory"}}],
        });
        if index % 2 == 1 {
            spec["containers"] = json!([container("a"), container("b")]);
        }
        if index % 3 == 2 {
            spec["shareProcessNamespace"] = json!(true);
        }
        let meta = json!({"name": format!("p{index}"), "namespace": "default", "uid": uid, "generation": 1});
        self.api.put(
            &path(index),
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}),
        );
    }

    fn delete(&self, index: usize) {
        let Some(mut pod) = self.api.get(&path(index)) else { return };
        pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        pod["metadata"]["deletionGracePeriodSeconds"] = json!(0);
        self.api.put(&path(index), pod);
    }

    /// All processes of the node, and the directory of the cgroups they are in.
    fn processes(&self, below: &str) -> Vec<i32> {
        let root = Path::new("/sys/fs/cgroup");
        let unified = [root.join("unified"), root.to_owned()];
        let unified = unified.into_iter().find(|d| d.join("cgroup.procs").exists()).unwrap();
        let mut pids = Vec::new();
        let group = format!("{}{below}", self.config.cgroup_parent);
        collect_pids(&unified.join(group.trim_start_matches('/')), &mut pids);
        pids
    }

    fn kill(&self, dice: &mut Dice, below: &str) {
        let pids = self.processes(below);
        if pids.is_empty() {
            return;
        }
        let chosen = pids[dice.below(pids.len() as u64) as usize];
        // It may have ended meanwhile.
        let pid = rustix::process::Pid::from_raw(chosen).unwrap();
        let _gone = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }

    fn disturb(&mut self, dice: &mut Dice) {
        match dice.below(10) {
            0 => {
                self.kill_agent();
                self.start_agent();
            }
            1 => self.kill(dice, "/supervisor"),
            2 => {
                let index = dice.below(PODS as u64) as usize;
                match self.api.get(&path(index)) {
                    Some(_) => self.delete(index),
                    None => self.make(index),
                }
            }
            _ => self.kill(dice, "/kubepods"),
        }
        // Disturbances come at random times: that is the test.
        std::thread::sleep(Duration::from_millis(dice.below(300)));
    }

    fn expected(&self, index: usize) -> usize {
        1 + index % 2
    }

    /// Why the pods are not all well, if they are not.
    fn trouble(&self) -> Option<String> {
        for index in 0..PODS {
            let Some(pod) = self.api.get(&path(index)) else {
                return Some(format!("p{index} is gone"));
            };
            let status = &pod["status"];
            let all = status["containerStatuses"].as_array().cloned().unwrap_or_default();
            let ready =
                all.iter().filter(|c| c["ready"] == true && c["state"]["running"].is_object());
            if status["phase"] != "Running" || ready.count() != self.expected(index) {
                return Some(format!("p{index}: {status:#}"));
            }
        }
        let listed = self.listed();
        let wanted: usize = (0..PODS).map(|index| self.expected(index)).sum();
        let running: Vec<_> = listed.iter().filter(|(_, state)| *state == 1).collect();
        if running.len() != wanted {
            return Some(format!("{wanted} containers are wanted, these run: {running:?}"));
        }
        // Each has a shell and what it waits for; a shared namespace has its init.
        let sleeping = self.processes("/kubepods").into_iter().filter(|pid| name(*pid) == "sleep");
        let sleeping = sleeping.count();
        (sleeping != wanted).then(|| format!("{sleeping} processes for {wanted} containers"))
    }

    fn listed(&self) -> Vec<(String, i32)> {
        let agent = self.agent.as_ref().unwrap();
        let listed = agent.runtime.list_containers(ContainerFilter::default());
        let listed = agent.threads.block_on(listed).unwrap();
        listed.into_iter().map(|c| (c.labels["io.kubernetes.pod.uid"].clone(), c.state)).collect()
    }

    fn wait(&self, what: &str, trouble: impl Fn() -> Option<String>) {
        let begun = Instant::now();
        while let Some(why) = trouble() {
            assert!(begun.elapsed() < LIMIT, "{what}: {why}");
            // What is waited for is in the kernel (processes, mounts, cgroups), which tells nobody.
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn mounts(&self) -> Vec<String> {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let points = mounts.lines().filter_map(|l| l.split(' ').nth(4));
        let own = points.filter(|p| Path::new(p).starts_with(self.dir.path()));
        own.map(str::to_owned).collect()
    }

    /// What is left of pods that are gone.
    fn left(&self) -> Option<String> {
        let dirs = ["run/sandboxes", "run/runs", "lib/sandboxes", "lib/containers", "lib/damaged"];
        let dirs = dirs.into_iter().chain(["kubelet/pods", "logs"]);
        for dir in dirs {
            let place = self.dir.path().join(dir);
            let entries = std::fs::read_dir(&place).into_iter().flatten().flatten();
            let names: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
            if !names.is_empty() {
                return Some(format!("{names:?}"));
            }
        }
        let mounts = self.mounts();
        let pids = self.processes("/kubepods");
        let groups = self.groups();
        let clean = mounts.len() <= 1 && pids.is_empty() && groups.is_empty();
        (!clean).then(|| format!("mounts {mounts:?}, processes {pids:?}, cgroups {groups:?}"))
    }

    /// Cgroups of pods, in every hierarchy.
    fn groups(&self) -> Vec<PathBuf> {
        let hierarchies = std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten();
        let roots = hierarchies.map(|entry| entry.path()).chain([PathBuf::from("/sys/fs/cgroup")]);
        let parent = format!("{}/kubepods", self.config.cgroup_parent);
        let mut found = Vec::new();
        for root in roots {
            pods_below(&root.join(parent.trim_start_matches('/')), &mut found);
        }
        found
    }
}

/// Processes of a cgroup and those below it.
fn collect_pids(dir: &Path, pids: &mut Vec<i32>) {
    let text = std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            collect_pids(&entry.path(), pids);
        }
    }
}

fn pods_below(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            let is_pod = entry.file_name().to_string_lossy().starts_with("pod");
            found.extend(is_pod.then(|| path.clone()));
            pods_below(&path, found);
        }
    }
}

fn name(pid: i32) -> String {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim().to_owned()
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(agent) = self.agent.take() {
            agent.threads.shutdown_timeout(Duration::from_secs(10));
        }
        let group = Hierarchies::detect(Path::new("/sys/fs/cgroup"))
            .and_then(|h| h.group(&self.config.cgroup_parent));
        let group = group.unwrap();
        let deadline = Instant::now() + LIMIT;
        while group.kill().and_then(|()| group.remove()).is_err() {
            assert!(Instant::now() < deadline, "cgroups stay");
            std::thread::yield_now();
        }
        for point in self.mounts().iter().rev() {
            // One may have gone with the one above it.
            let _gone = rustix::mount::unmount(point.as_str(), rustix::mount::UnmountFlags::DETACH);
        }
    }
}

#[test]
fn whatever_is_killed_everything_comes_back_or_goes() {
    let seconds = number("TRIREME_CHAOS_SECONDS").unwrap_or(60);
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let seed = number("TRIREME_CHAOS_SEED").unwrap_or(clock.as_nanos() as u64 | 1);
    println!("TRIREME_CHAOS_SEED={seed}");
    let (mut world, mut dice) = (World::new(), Dice(seed));
    world.start_agent();
    (0..PODS).for_each(|index| world.make(index));
    world.wait("at the start", || world.trouble());
    let begun = Instant::now();
    let mut disturbances = 0;
    while begun.elapsed() < Duration::from_secs(seconds) {
        world.disturb(&mut dice);
        disturbances += 1;
    }
    println!("{disturbances} disturbances");
    // Those that are being deleted go, then all are there again.
    world.wait("deletions", || {
        let all = (0..PODS).filter_map(|index| world.api.get(&path(index)));
        let ending = all.filter(|pod| pod["metadata"]["deletionTimestamp"].is_string());
        let names: Vec<Value> = ending.map(|pod| pod["status"].clone()).collect();
        (!names.is_empty()).then(|| format!("{names:?}"))
    });
    for index in 0..PODS {
        if world.api.get(&path(index)).is_none() {
            world.make(index);
        }
    }
    world.wait("after the chaos", || world.trouble());
    (0..PODS).for_each(|index| world.delete(index));
    world.wait("the end of all pods", || {
        let there: Vec<usize> =
            (0..PODS).filter(|index| world.api.get(&path(*index)).is_some()).collect();
        (!there.is_empty()).then(|| format!("{there:?} are there"))
    });
    world.wait("what is left", || world.left());
    let Agent { threads, runtime } = world.agent.take().unwrap();
    let alone = Embedded::clone(&runtime);
    drop(runtime);
    threads.block_on(alone.reset()).map_err(|e| e.chain()).unwrap();
    threads.shutdown_timeout(Duration::from_secs(10));
    assert_eq!((world.processes(""), world.mounts()), (Vec::new(), Vec::new()));
}
