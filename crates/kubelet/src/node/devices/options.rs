//! Additions to a container for its devices: environment, mounts, device nodes, annotations, CDI devices.

use std::collections::{BTreeMap, BTreeSet};

use placement::Allocation;
use prost::Message as _;
use runtime::cri::{CDIDevice, ContainerConfig, Device, KeyValue, Mount};

use super::wire::ContainerAllocateResponse;

/// Put together from the answers of all plugins; the first one wins.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct ContainerOptions {
    envs: BTreeMap<String, String>,
    /// By path in the container: the path on the host, and whether it is read-only.
    mounts: BTreeMap<String, (String, bool)>,
    /// By path in the container: the path on the host, and permissions.
    devices: BTreeMap<String, (String, String)>,
    annotations: BTreeMap<String, String>,
    pub(crate) cdi: BTreeSet<String>,
}

fn put<V: PartialEq>(into: &mut BTreeMap<String, V>, key: String, value: V, what: &str) {
    match into.get(&key) {
        None => drop(into.insert(key, value)),
        Some(first) if *first == value => {}
        Some(_) => tracing::error!(key, "{what} of a container's devices has conflicting settings"),
    }
}

impl ContainerOptions {
    pub(crate) fn of(all: &BTreeMap<String, Allocation>) -> ContainerOptions {
        let mut options = ContainerOptions::default();
        for (resource, allocation) in all {
            match ContainerAllocateResponse::decode(allocation.answer.as_slice()) {
                Ok(answer) => options.add(answer),
                Err(error) => tracing::error!(%error, resource, "a plugin's answer is lost"),
            }
        }
        options
    }

    fn add(&mut self, answer: ContainerAllocateResponse) {
        for (name, value) in answer.envs {
            put(&mut self.envs, name, value, "environment variable");
        }
        for device in answer.devices {
            let value = (device.host_path, device.permissions);
            put(&mut self.devices, device.container_path, value, "device");
        }
        for mount in answer.mounts {
            let value = (mount.host_path, mount.read_only);
            put(&mut self.mounts, mount.container_path, value, "mount");
        }
        for (key, value) in answer.annotations {
            put(&mut self.annotations, key, value, "annotation");
        }
        self.cdi.extend(answer.cdi_devices.into_iter().map(|device| device.name));
    }

    /// The container's own settings win over those of its devices.
    pub(crate) fn apply(self, config: &mut ContainerConfig) {
        let has = |name: &str| config.envs.iter().any(|e| e.key == name);
        let envs: Vec<_> = self.envs.into_iter().filter(|(name, _)| !has(name)).collect();
        config
            .envs
            .extend(envs.into_iter().map(|(key, value)| KeyValue { key, value: value.into() }));
        let mounts = self.mounts.into_iter().map(|(container_path, (host_path, readonly))| Mount {
            container_path,
            host_path,
            readonly,
            ..Mount::default()
        });
        let own = std::mem::take(&mut config.mounts);
        config.mounts = mounts.chain(own).collect();
        config.devices.extend(self.devices.into_iter().map(
            |(container_path, (host_path, permissions))| Device {
                container_path,
                host_path,
                permissions,
            },
        ));
        for (key, value) in self.annotations {
            config.annotations.entry(key).or_insert(value);
        }
        config.cdi_devices.extend(self.cdi.into_iter().map(|name| CDIDevice { name }));
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::{CdiDevice, DeviceSpec, Mount as WireMount};
    use super::*;

    fn allocation(mount: &str) -> Allocation {
        let text = |t: &str| t.to_owned();
        let answer = ContainerAllocateResponse {
            envs: [(text("A"), text("1")), (text("OWN"), text("plugin"))].into(),
            mounts: vec![WireMount {
                container_path: text("/m"),
                host_path: text(mount),
                read_only: true,
            }],
            devices: vec![DeviceSpec {
                container_path: text("/dev/x"),
                host_path: text("/dev/null"),
                permissions: text("rw"),
            }],
            annotations: [(text("k"), text("v"))].into(),
            cdi_devices: vec![CdiDevice { name: text("v.com/c=d") }],
        };
        Allocation { devices: BTreeMap::new(), answer: answer.encode_to_vec() }
    }

    #[test]
    fn answers_are_put_together_and_give_way_to_the_containers_own() {
        let all = [("a/r".to_owned(), allocation("/one")), ("b/r".to_owned(), allocation("/two"))];
        let mut config = ContainerConfig {
            envs: vec![KeyValue { key: "OWN".into(), value: b"mine".to_vec() }],
            mounts: vec![Mount { container_path: "/own".into(), ..Mount::default() }],
            ..ContainerConfig::default()
        };
        ContainerOptions::of(&all.into()).apply(&mut config);
        let envs: Vec<_> = config.envs.iter().map(|e| (e.key.as_str(), &e.value[..])).collect();
        assert_eq!(envs, [("OWN", &b"mine"[..]), ("A", b"1")]);
        let mounts: Vec<_> = config
            .mounts
            .iter()
            .map(|m| (m.container_path.as_str(), m.host_path.as_str()))
            .collect();
        assert_eq!(mounts, [("/m", "/one"), ("/own", "")]);
        assert!(config.mounts[0].readonly);
        assert_eq!(config.devices.len(), 1);
        assert_eq!(config.annotations["k"], "v");
        assert_eq!(config.cdi_devices, [CDIDevice { name: "v.com/c=d".into() }]);
    }
}
