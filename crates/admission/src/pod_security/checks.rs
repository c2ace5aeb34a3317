//! The standards' rules, each as of the versions it holds for.

use std::collections::BTreeSet;

use serde_json::Value;
use validation::{items, text};

use super::{Violation, name};

/// A pod as a version's rules look at it.
pub(super) struct Pod<'a> {
    pub(super) annotations: &'a Value,
    pub(super) spec: &'a Value,
    /// Minor of 1.x.
    pub(super) version: u32,
}

type Found = Option<Violation>;

fn plural<'w>(one: &'w str, many: &'w str, count: usize) -> &'w str {
    if count == 1 { one } else { many }
}

fn quoted<'w>(words: impl IntoIterator<Item = &'w str>) -> String {
    let all: Vec<String> = words.into_iter().map(|w| format!("\"{w}\"")).collect();
    all.join(", ")
}

/// `container "a"`, `containers "a", "b"`.
fn containers(names: &[&str]) -> String {
    let word = plural("container", "containers", names.len());
    format!("{word} {}", quoted(names.iter().copied()))
}

fn violation(bad: bool, reason: &'static str, detail: impl FnOnce() -> String) -> Found {
    bad.then(|| Violation { reason, detail: detail() })
}

/// Values that are found wrong, and who set them.
#[derive(Default)]
struct Bad<'a> {
    pod: bool,
    containers: Vec<&'a str>,
    values: BTreeSet<&'a str>,
}

impl Bad<'_> {
    fn any(&self) -> bool {
        self.pod || !self.containers.is_empty()
    }

    /// `pod and container "a"`.
    fn setters(&self) -> String {
        let pod = self.pod.then(|| "pod".to_owned());
        let others = (!self.containers.is_empty()).then(|| containers(&self.containers));
        pod.into_iter().chain(others).collect::<Vec<_>>().join(" and ")
    }

    fn values(&self) -> String {
        quoted(self.values.iter().copied())
    }
}

impl<'a> Pod<'a> {
    fn containers(&self) -> impl Iterator<Item = &'a Value> {
        let spec = self.spec;
        ["initContainers", "containers", "ephemeralContainers"]
            .into_iter()
            .flat_map(move |kind| items(spec, kind))
    }

    /// Names of containers for which the test holds.
    fn named(&self, test: impl Fn(&Value) -> bool) -> Vec<&'a str> {
        self.containers().filter(|c| test(c)).map(name).collect()
    }

    /// Where a field of the security contexts has a value that is not allowed.
    fn bad_values(&self, path: &[&str], allowed: impl Fn(&str) -> bool) -> Bad<'a> {
        let found = |context: &'a Value| {
            let value = path.iter().fold(context, |value, key| &value[*key]);
            value.as_str().filter(|value| !allowed(value))
        };
        let mut bad = Bad::default();
        if let Some(value) = found(&self.spec["securityContext"]) {
            bad.pod = true;
            bad.values.insert(value);
        }
        for container in self.containers() {
            if let Some(value) = found(&container["securityContext"]) {
                bad.containers.push(name(container));
                bad.values.insert(value);
            }
        }
        bad
    }

    /// User namespaces make root in the pod nobody outside (KEP-127).
    fn relaxed(&self) -> bool {
        self.version >= 35 && self.spec["hostUsers"] == false
    }

    /// In the order in which upstream tells them.
    pub(super) fn baseline(&self) -> Vec<Violation> {
        let mut all = self.head();
        all.insert(1, self.capabilities());
        all.insert(3, self.host_paths());
        let seccomp = all.len() - 2;
        all.insert(seccomp, self.seccomp(false));
        all.into_iter().flatten().collect()
    }

    /// Rules that both levels have.
    fn head(&self) -> Vec<Found> {
        vec![
            self.app_armor(),
            self.host_namespaces(),
            self.host_ports(),
            self.host_probes(),
            self.privileged(),
            self.proc_mount(),
            self.selinux(),
            self.sysctls(),
            self.windows_host_process(),
        ]
    }

    /// The baseline's rules without those that stricter ones replace, then these.
    pub(super) fn restricted(&self, windows: bool) -> Vec<Violation> {
        // Pods that say they are Windows pods are exempt from rules about Linux.
        let linux = !(windows && self.version >= 25);
        let (drops, profiles) = (self.version >= 22, self.version >= 19);
        let mut all = self.head();
        if !profiles {
            let seccomp = all.len() - 2;
            all.insert(seccomp, self.seccomp(false));
        }
        if !drops {
            all.insert(1, self.capabilities());
        }
        all.extend([
            self.escalation().filter(|_| linux && self.version >= 8),
            self.capabilities_restricted().filter(|_| linux && drops),
            self.volumes(),
            self.run_as_non_root().filter(|_| !self.relaxed()),
            self.run_as_user().filter(|_| self.version >= 23 && !self.relaxed()),
            self.seccomp(true).filter(|_| linux && profiles),
        ]);
        all.into_iter().flatten().collect()
    }

    fn app_armor(&self) -> Found {
        let path = ["appArmorProfile", "type"];
        let mut bad = self.bad_values(&path, |t| matches!(t, "RuntimeDefault" | "Localhost"));
        let annotations: BTreeSet<String> = self
            .annotations
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(key, _)| key.starts_with("container.apparmor.security.beta.kubernetes.io/"))
            .filter(|(_, value)| {
                let value = text(value);
                !value.is_empty() && value != "runtime/default" && !value.starts_with("localhost/")
            })
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        bad.values.extend(annotations.iter().map(String::as_str).map(|_| ""));
        bad.values.remove("");
        if !bad.any() && annotations.is_empty() {
            return None;
        }
        let mut setters: Vec<String> = Vec::new();
        if bad.any() {
            setters.push(bad.setters());
        }
        if !annotations.is_empty() {
            setters.push(plural("annotation", "annotations", annotations.len()).into());
        }
        let values: Vec<&str> =
            bad.values.iter().copied().chain(annotations.iter().map(String::as_str)).collect();
        let reason = match values.len() {
            1 => "forbidden AppArmor profile",
            _ => "forbidden AppArmor profiles",
        };
        let detail = format!(
            "{} must not set AppArmor profile type to {}",
            setters.join(" and "),
            quoted(values)
        );
        Some(Violation { reason, detail })
    }

    fn host_namespaces(&self) -> Found {
        let used: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
            .iter()
            .filter(|key| self.spec[**key] == true)
            .map(|key| format!("{key}=true"))
            .collect();
        violation(!used.is_empty(), "host namespaces", || used.join(", "))
    }

    fn host_ports(&self) -> Found {
        let port = |p: &Value| p["hostPort"].as_i64().filter(|port| *port != 0);
        let bad = self.named(|c| items(c, "ports").any(|p| port(p).is_some()));
        let ports: BTreeSet<String> = self
            .containers()
            .flat_map(|c| items(c, "ports"))
            .filter_map(|p| Some(port(p)?.to_string()))
            .collect();
        violation(!bad.is_empty(), "hostPort", || {
            let uses = plural("uses", "use", bad.len());
            let word = plural("hostPort", "hostPorts", ports.len());
            let ports: Vec<String> = ports.into_iter().collect();
            format!("{} {uses} {word} {}", containers(&bad), ports.join(", "))
        })
    }

    fn host_probes(&self) -> Found {
        if self.version < 34 {
            return None;
        }
        let mut bad = BTreeSet::new();
        let mut hosts = BTreeSet::new();
        for container in self.containers() {
            let probes = ["livenessProbe", "readinessProbe", "startupProbe"].map(|p| &container[p]);
            let hooks = ["postStart", "preStop"].map(|hook| &container["lifecycle"][hook]);
            for action in probes.into_iter().chain(hooks) {
                for kind in ["httpGet", "tcpSocket"] {
                    let host = text(&action[kind]["host"]);
                    if !host.is_empty() {
                        bad.insert(name(container));
                        hosts.insert(host);
                    }
                }
            }
        }
        violation(!bad.is_empty(), "probe or lifecycle host", || {
            let names: Vec<&str> = bad.into_iter().collect();
            let uses = plural("uses", "use", names.len());
            let word = plural("probe or lifecycle host", "probe or lifecycle hosts", hosts.len());
            format!("{} {uses} {word} {}", containers(&names), quoted(hosts))
        })
    }

    fn privileged(&self) -> Found {
        let bad = self.named(|c| c["securityContext"]["privileged"] == true);
        violation(!bad.is_empty(), "privileged", || {
            format!("{} must not set securityContext.privileged=true", containers(&bad))
        })
    }

    fn proc_mount(&self) -> Found {
        if self.relaxed() {
            return None;
        }
        let mut bad = self.bad_values(&["procMount"], |t| t == "Default");
        // Pods have no such field; only containers do.
        bad.pod = false;
        violation(bad.any(), "procMount", || {
            let (setters, values) = (bad.setters(), bad.values());
            format!("{setters} must not set securityContext.procMount to {values}")
        })
    }

    fn selinux(&self) -> Found {
        let engine = self.version >= 31;
        let allowed = |t: &str| {
            matches!(t, "" | "container_t" | "container_init_t" | "container_kvm_t")
                || (engine && t == "container_engine_t")
        };
        let options = |of: &'a Value| &of["securityContext"]["seLinuxOptions"];
        let wrong = |o: &Value| {
            !allowed(text(&o["type"]))
                || !text(&o["user"]).is_empty()
                || !text(&o["role"]).is_empty()
        };
        let pod = wrong(options(self.spec));
        let bad = Bad {
            pod,
            containers: self.containers().filter(|c| wrong(options(c))).map(name).collect(),
            values: self
                .containers()
                .chain([self.spec])
                .map(|of| text(&options(of)["type"]))
                .filter(|t| !allowed(t))
                .collect(),
        };
        violation(bad.any(), "seLinuxOptions", || {
            let set = |key: &str| {
                self.containers().chain([self.spec]).any(|of| !text(&options(of)[key]).is_empty())
            };
            let mut data = Vec::new();
            if !bad.values.is_empty() {
                let word = plural("type", "types", bad.values.len());
                data.push(format!("{word} {}", bad.values()));
            }
            data.extend(set("user").then(|| "user may not be set".to_owned()));
            data.extend(set("role").then(|| "role may not be set".to_owned()));
            let setters = bad.setters();
            format!("{setters} set forbidden securityContext.seLinuxOptions: {}", data.join("; "))
        })
    }

    fn sysctls(&self) -> Found {
        let allowed = |name: &str| {
            let since = match name {
                "kernel.shm_rmid_forced"
                | "net.ipv4.ip_local_port_range"
                | "net.ipv4.tcp_syncookies"
                | "net.ipv4.ping_group_range"
                | "net.ipv4.ip_unprivileged_port_start" => 0,
                "net.ipv4.ip_local_reserved_ports" => 27,
                "net.ipv4.tcp_keepalive_time"
                | "net.ipv4.tcp_fin_timeout"
                | "net.ipv4.tcp_keepalive_intvl"
                | "net.ipv4.tcp_keepalive_probes" => 29,
                "net.ipv4.tcp_rmem" | "net.ipv4.tcp_wmem" => 32,
                _ => return false,
            };
            self.version >= since
        };
        let set = items(&self.spec["securityContext"], "sysctls").map(|s| text(&s["name"]));
        let bad: Vec<&str> = set.filter(|name| !allowed(name)).collect();
        violation(!bad.is_empty(), "forbidden sysctls", || bad.join(", "))
    }

    fn windows_host_process(&self) -> Found {
        let set = |of: &Value| of["securityContext"]["windowsOptions"]["hostProcess"] == true;
        let bad = Bad { pod: set(self.spec), containers: self.named(set), values: BTreeSet::new() };
        violation(bad.any(), "hostProcess", || {
            let setters = bad.setters();
            format!("{setters} must not set securityContext.windowsOptions.hostProcess=true")
        })
    }

    fn capabilities(&self) -> Found {
        const ALLOWED: [&str; 13] = [
            "AUDIT_WRITE",
            "CHOWN",
            "DAC_OVERRIDE",
            "FOWNER",
            "FSETID",
            "KILL",
            "MKNOD",
            "NET_BIND_SERVICE",
            "SETFCAP",
            "SETGID",
            "SETPCAP",
            "SETUID",
            "SYS_CHROOT",
        ];
        let (bad, added) = self.added(|c| ALLOWED.contains(&c));
        violation(!bad.is_empty(), "non-default capabilities", || {
            let added = quoted(added);
            format!(
                "{} must not include {added} in securityContext.capabilities.add",
                containers(&bad)
            )
        })
    }

    /// Containers that add capabilities they may not, and which.
    fn added(&self, allowed: impl Fn(&str) -> bool) -> (Vec<&'a str>, BTreeSet<&'a str>) {
        let mut all = BTreeSet::new();
        let mut bad = Vec::new();
        for container in self.containers() {
            let add = items(&container["securityContext"]["capabilities"], "add").map(text);
            let more: Vec<&str> = add.filter(|c| !allowed(c)).collect();
            if !more.is_empty() {
                bad.push(name(container));
                all.extend(more);
            }
        }
        (bad, all)
    }

    fn capabilities_restricted(&self) -> Found {
        let drops_all =
            |c: &Value| items(&c["securityContext"]["capabilities"], "drop").any(|d| d == "ALL");
        let keeping = self.named(|c| !drops_all(c));
        let (adding, added) = self.added(|c| c == "NET_BIND_SERVICE");
        let mut details = Vec::new();
        if !keeping.is_empty() {
            let who = containers(&keeping);
            details.push(format!("{who} must set securityContext.capabilities.drop=[\"ALL\"]"));
        }
        if !adding.is_empty() {
            let (who, what) = (containers(&adding), quoted(added));
            details
                .push(format!("{who} must not include {what} in securityContext.capabilities.add"));
        }
        violation(!details.is_empty(), "unrestricted capabilities", || details.join("; "))
    }

    fn host_paths(&self) -> Found {
        let volumes = items(self.spec, "volumes").filter(|v| v["hostPath"].is_object());
        let bad: Vec<&str> = volumes.map(name).collect();
        violation(!bad.is_empty(), "hostPath volumes", || {
            format!("{} {}", plural("volume", "volumes", bad.len()), quoted(bad))
        })
    }

    fn volumes(&self) -> Found {
        const ALLOWED: [&str; 9] = [
            "configMap",
            "csi",
            "downwardAPI",
            "emptyDir",
            "ephemeral",
            "image",
            "persistentVolumeClaim",
            "projected",
            "secret",
        ];
        let source = |v: &'a Value| {
            let keys = v.as_object().into_iter().flatten();
            keys.filter(|(key, value)| *key != "name" && !value.is_null())
                .map(|(key, _)| key.as_str())
                .next()
        };
        let mut types = BTreeSet::new();
        let mut bad = Vec::new();
        for volume in items(self.spec, "volumes") {
            let kind = source(volume).unwrap_or("unknown");
            if !ALLOWED.contains(&kind) {
                bad.push(name(volume));
                types.insert(kind);
            }
        }
        violation(!bad.is_empty(), "restricted volume types", || {
            let volumes = plural("volume", "volumes", bad.len());
            let uses = plural("uses", "use", bad.len());
            let word = plural("restricted volume type", "restricted volume types", types.len());
            format!("{volumes} {} {uses} {word} {}", quoted(bad), quoted(types))
        })
    }

    fn escalation(&self) -> Found {
        let bad = self.named(|c| c["securityContext"]["allowPrivilegeEscalation"] != false);
        violation(!bad.is_empty(), "allowPrivilegeEscalation != false", || {
            format!("{} must set securityContext.allowPrivilegeEscalation=false", containers(&bad))
        })
    }

    fn run_as_non_root(&self) -> Found {
        const REASON: &str = "runAsNonRoot != true";
        let of = |of: &Value| of["securityContext"]["runAsNonRoot"].as_bool();
        let bad = Bad {
            pod: of(self.spec) == Some(false),
            containers: self.named(|c| of(c) == Some(false)),
            values: BTreeSet::new(),
        };
        if bad.any() {
            let detail =
                format!("{} must not set securityContext.runAsNonRoot=false", bad.setters());
            return Some(Violation { reason: REASON, detail });
        }
        let unset = self.named(|c| of(c).is_none());
        violation(of(self.spec).is_none() && !unset.is_empty(), REASON, || {
            format!("pod or {} must set securityContext.runAsNonRoot=true", containers(&unset))
        })
    }

    fn run_as_user(&self) -> Found {
        let root = |of: &Value| of["securityContext"]["runAsUser"] == 0;
        let bad =
            Bad { pod: root(self.spec), containers: self.named(root), values: BTreeSet::new() };
        violation(bad.any(), "runAsUser=0", || {
            format!("{} must not set runAsUser=0", bad.setters())
        })
    }

    /// The baseline forbids other profiles; restricted also demands one.
    fn seccomp(&self, demanded: bool) -> Found {
        const REASON: &str = "seccompProfile";
        let path = ["seccompProfile", "type"];
        let bad = self.bad_values(&path, |t| matches!(t, "RuntimeDefault" | "Localhost"));
        if bad.any() {
            let detail = format!(
                "{} must not set securityContext.seccompProfile.type to {}",
                bad.setters(),
                bad.values()
            );
            return Some(Violation { reason: REASON, detail });
        }
        let of = |of: &Value| of["securityContext"]["seccompProfile"].is_object();
        let unset = self.named(|c| !of(c));
        violation(demanded && !of(self.spec) && !unset.is_empty(), REASON, || {
            let who = containers(&unset);
            format!(
                "pod or {who} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\""
            )
        })
    }
}
