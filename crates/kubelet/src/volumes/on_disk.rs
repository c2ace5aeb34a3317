//! What a pod has on the node's disk beside its containers' own files: its directory (volumes,
//! `/etc/hosts`, termination messages) and its logs. Volumes in memory are not on the disk.

use std::collections::BTreeMap;
use std::io;

use k8s_openapi::api::core::v1::Pod;

use crate::beneath::{Dir, Usage};
use crate::config::KubeletConfig;
use crate::spec::{name_of, namespace_of, spec_of, uid_of};
use crate::volumes;

/// A tree that cannot be measured takes everything: that is no way around a limit.
const UNKNOWN: Usage = Usage { bytes: u64::MAX, inodes: u64::MAX };

#[derive(Debug, Default)]
pub(crate) struct OnDisk {
    /// The pod's directory.
    pub(crate) own: Usage,
    /// Logs of all containers.
    pub(crate) logs: Usage,
    /// Those of each container.
    pub(crate) container_logs: BTreeMap<String, Usage>,
}

impl OnDisk {
    /// Walks the trees: not for the async workers.
    pub(crate) fn measure(config: &KubeletConfig, pod: &Pod) -> OnDisk {
        let logs = format!("{}_{}_{}", namespace_of(pod), name_of(pod), uid_of(pod));
        let logs = Dir::root(&config.log_dir).and_then(|dir| dir.open(logs));
        let spec = spec_of(pod);
        let init = spec.init_containers.iter().flatten().map(|c| &c.name);
        let names = spec.containers.iter().map(|c| &c.name).chain(init);
        let of = |name: &String| {
            let dir = logs.as_ref().ok()?.open(name);
            Some((name.clone(), usage(&dir)))
        };
        OnDisk {
            own: usage(&volumes::open_pod_dir(&config.root_dir, uid_of(pod))),
            logs: usage(&logs),
            container_logs: names.filter_map(of).collect(),
        }
    }

    pub(crate) fn total(&self) -> Usage {
        self.own.plus(self.logs)
    }

    pub(crate) fn logs_of(&self, container: &str) -> Usage {
        self.container_logs.get(container).copied().unwrap_or_default()
    }
}

/// A directory that is not there takes nothing.
fn usage(dir: &io::Result<Dir>) -> Usage {
    dir.as_ref().map_or(Usage::default(), |dir| dir.usage().unwrap_or(UNKNOWN))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_pods_own_files_and_each_containers_logs_count() {
        let root = tempfile::tempdir().unwrap();
        let mut config = KubeletConfig::new("n");
        config.root_dir = root.path().join("kubelet");
        config.log_dir = root.path().join("logs");
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u"},
            "spec": {"containers": [{"name": "a"}], "initContainers": [{"name": "i"}]},
        }))
        .unwrap();
        let nothing = OnDisk::measure(&config, &pod).total();
        assert_eq!(nothing, Usage::default());
        let own = config.root_dir.join("pods/u");
        let logs = config.log_dir.join("ns_p_u/a");
        std::fs::create_dir_all(&own).unwrap();
        std::fs::create_dir_all(&logs).unwrap();
        std::fs::write(own.join("etc-hosts"), vec![1; 40 << 10]).unwrap();
        std::fs::write(logs.join("0.log"), vec![1; 80 << 10]).unwrap();
        let found = OnDisk::measure(&config, &pod);
        assert!(found.own.bytes >= 40 << 10 && found.logs_of("a").bytes >= 80 << 10, "{found:?}");
        assert!(found.total().bytes >= 120 << 10 && found.total().inodes >= 3, "{found:?}");
        assert_eq!(found.logs_of("i"), Usage::default());
    }
}
