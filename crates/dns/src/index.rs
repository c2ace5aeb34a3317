//! The names of the cluster, kept up to date change by change.
//!
//! Each change touches the entries of its own service or pod only. The reverse index (address to
//! names) is kept with it, because a scan per question would cost the size of the cluster.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use crate::model::{Change, Key, Service, Slice, pod_ips};

/// All that questions are answered from.
#[derive(Debug, Default)]
pub struct Index {
    pub(crate) services: HashMap<Key, Service>,
    slices: HashMap<Key, Slice>,
    by_service: HashMap<Key, BTreeSet<Key>>,
    pods: HashMap<Key, Vec<IpAddr>>,
    /// Pods per namespace and address: two may share one for a moment, host-network ones always.
    pod_addresses: HashMap<(String, IpAddr), usize>,
    /// Namespaces that there are: their names exist though nothing may be in them.
    named: HashSet<String>,
    /// Services and pods per namespace: one that is just ending may still have some.
    namespaces: HashMap<String, usize>,
    reverse: HashMap<IpAddr, BTreeSet<String>>,
    reverse_of: HashMap<Key, Vec<(IpAddr, String)>>,
    synced: bool,
}

impl Index {
    pub fn new() -> Self {
        Index::default()
    }

    /// The initial state is complete: from now on a name that is not here does not exist. Before,
    /// such questions are answered "try again" (SERVFAIL).
    pub fn set_synced(&mut self) {
        self.synced = true;
    }

    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Service(service) => {
                let key = key(&service.metadata);
                self.set_service(key, Service::from_api(&service));
            }
            Change::ServiceDeleted { namespace, name } => self.set_service((namespace, name), None),
            Change::EndpointSlice(slice) => {
                let key = key(&slice.metadata);
                self.set_slice(key, Slice::from_api(&slice));
            }
            Change::EndpointSliceDeleted { namespace, name } => {
                self.set_slice((namespace, name), None);
            }
            Change::Pod(pod) => self.set_pod(key(&pod.metadata), Some(pod_ips(&pod))),
            Change::PodDeleted { namespace, name } => self.set_pod((namespace, name), None),
            Change::Namespace(name) => drop(self.named.insert(name)),
            Change::NamespaceDeleted(name) => drop(self.named.remove(&name)),
        }
    }

    pub(crate) fn is_synced(&self) -> bool {
        self.synced
    }

    pub(crate) fn service(&self, namespace: &str, name: &str) -> Option<&Service> {
        self.services.get(&(namespace.to_owned(), name.to_owned()))
    }

    pub(crate) fn slices_of(&self, namespace: &str, name: &str) -> impl Iterator<Item = &Slice> {
        let keys = self.by_service.get(&(namespace.to_owned(), name.to_owned()));
        keys.into_iter().flatten().filter_map(|key| self.slices.get(key))
    }

    pub(crate) fn has_namespace(&self, namespace: &str) -> bool {
        self.named.contains(namespace) || self.namespaces.contains_key(namespace)
    }

    pub(crate) fn has_pod_address(&self, namespace: &str, ip: IpAddr) -> bool {
        self.pod_addresses.contains_key(&(namespace.to_owned(), ip))
    }

    /// Names (below the zone) that an address belongs to.
    pub(crate) fn names_of(&self, ip: IpAddr) -> impl Iterator<Item = &str> {
        self.reverse.get(&ip).into_iter().flatten().map(String::as_str)
    }

    fn set_service(&mut self, key: Key, service: Option<Service>) {
        let namespace = key.0.clone();
        let had = match service {
            Some(service) => {
                self.count_namespace(&namespace, true);
                self.services.insert(key.clone(), service).is_some()
            }
            None => self.services.remove(&key).is_some(),
        };
        if had {
            self.count_namespace(&namespace, false);
        }
        self.update_reverse(&key);
    }

    fn set_slice(&mut self, key: Key, slice: Option<Slice>) {
        if let Some(old) = self.slices.remove(&key) {
            if let Some(slices) = self.by_service.get_mut(&old.service) {
                slices.remove(&key);
                if slices.is_empty() {
                    self.by_service.remove(&old.service);
                }
            }
            self.update_reverse(&old.service);
        }
        if let Some(slice) = slice {
            let service = slice.service.clone();
            self.by_service.entry(service.clone()).or_default().insert(key.clone());
            self.slices.insert(key, slice);
            self.update_reverse(&service);
        }
    }

    fn set_pod(&mut self, key: Key, ips: Option<Vec<IpAddr>>) {
        let namespace = key.0.clone();
        let old = match ips {
            Some(ips) => {
                self.count_namespace(&namespace, true);
                for ip in &ips {
                    *self.pod_addresses.entry((namespace.clone(), *ip)).or_default() += 1;
                }
                self.pods.insert(key, ips)
            }
            None => self.pods.remove(&key),
        };
        if let Some(old) = old {
            self.count_namespace(&namespace, false);
            for ip in old {
                decrement(&mut self.pod_addresses, &(namespace.clone(), ip));
            }
        }
    }

    fn count_namespace(&mut self, namespace: &str, more: bool) {
        if more {
            *self.namespaces.entry(namespace.to_owned()).or_default() += 1;
        } else {
            decrement(&mut self.namespaces, &namespace.to_owned());
        }
    }

    fn update_reverse(&mut self, key: &Key) {
        for (ip, name) in self.reverse_of.remove(key).unwrap_or_default() {
            if let Some(names) = self.reverse.get_mut(&ip) {
                names.remove(&name);
                if names.is_empty() {
                    self.reverse.remove(&ip);
                }
            }
        }
        let names = self.reverse_names(key);
        for (ip, name) in &names {
            self.reverse.entry(*ip).or_default().insert(name.clone());
        }
        if !names.is_empty() {
            self.reverse_of.insert(key.clone(), names);
        }
    }

    fn reverse_names(&self, key: &Key) -> Vec<(IpAddr, String)> {
        let (namespace, service) = key;
        let base = format!("{service}.{namespace}.svc");
        match self.services.get(key) {
            Some(Service::Addresses { ips, .. }) => {
                ips.iter().map(|ip| (*ip, base.clone())).collect()
            }
            Some(Service::Headless) => {
                let endpoints =
                    self.slices_of(namespace, service).flat_map(|slice| &slice.endpoints);
                endpoints.map(|e| (e.ip, format!("{}.{base}", e.host))).collect()
            }
            Some(Service::External(_)) | None => Vec::new(),
        }
    }
}

fn key(metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> Key {
    (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
}

fn decrement<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}
