//! Dynamic resources: the claims of a pod are prepared by their drivers before its sandbox is made, and
//! unprepared when the last pod that uses them has ended (upstream's `cm/dra`).
//!
//! Which devices a claim has, the scheduler has decided; a driver says which CDI devices that comes to.

mod claims;
mod figures;
mod health;
mod plugins;
pub(crate) mod registration;
mod show;
mod slices;
pub(crate) mod wire;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use client::{Client, Tasks};
use devices::ClaimName;
use futures::future::AbortHandle;
use k8s_openapi::api::core::v1::{Pod, PodResourceClaim};
use k8s_openapi::api::resource::v1::ResourceClaim;
use tokio::sync::{Notify, OwnedMutexGuard};

use crate::spec::{name_of, namespace_of, spec_of, uid_of};
pub(crate) use claims::ClaimInfo;
use claims::{Claims, Device, Key, Release};
use figures::Figures;
use health::HealthTable;
use plugins::{DraPlugin, DraPlugins};

/// Time for the API to give a claim.
const FETCH_MAX: Duration = Duration::from_secs(30);
/// How often claims of pods that are no more are looked for.
pub(crate) const RECONCILE: Duration = Duration::from_secs(60);

type Locks = HashMap<Key, Arc<tokio::sync::Mutex<()>>>;

/// The manager of claims.
pub(crate) struct Dra {
    claims: Mutex<Claims>,
    plugins: DraPlugins,
    health: Mutex<HealthTable>,
    client: Client,
    node: String,
    tasks: Tasks,
    figures: Figures,
    /// One thing at a time is done about a claim.
    locks: Mutex<Locks>,
    /// Pending deletions of drivers' ResourceSlices.
    wipes: Mutex<HashMap<String, AbortHandle>>,
    /// Uids of pods whose devices changed their health.
    affected: Mutex<BTreeSet<String>>,
    /// Told when that is so.
    pub(crate) news: Notify,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The claim of an entry, by name; `None`: none is needed.
fn named<'a>(pod: &'a Pod, entry: &'a PodResourceClaim) -> Result<ClaimName<'a>, String> {
    devices::claim_name(pod, entry).map_err(|e| e.to_string())
}

/// The claim that stands for extended resources (`DRAExtendedResource`).
fn extended(pod: &Pod) -> Option<&str> {
    let status = pod.status.as_ref()?.extended_resource_claim_status.as_ref()?;
    Some(&status.resource_claim_name)
}

/// A claim to be prepared.
struct Wanted {
    info: ClaimInfo,
    plugins: BTreeMap<String, Arc<DraPlugin>>,
}

fn wire_claim(info: &ClaimInfo) -> wire::Claim {
    wire::Claim {
        namespace: info.namespace.clone(),
        uid: info.claim_uid.clone(),
        name: info.claim_name.clone(),
    }
}

/// The claim of this uid among those that were asked for.
fn asked<'a>(
    claims: &'a [wire::Claim],
    uid: &str,
    method: &str,
) -> Result<&'a wire::Claim, String> {
    let found = claims.iter().find(|claim| claim.uid == uid);
    found.ok_or_else(|| format!("{method} returned result for unknown claim UID {uid}"))
}

/// Every claim that was asked for has its answer, and that is no error.
fn complete<'a>(
    claims: &[wire::Claim],
    answers: impl Iterator<Item = (&'a String, &'a str)>,
    method: &str,
) -> Result<(), String> {
    let mut count = 0;
    for (uid, error) in answers {
        let claim = asked(claims, uid, method)?;
        if !error.is_empty() {
            return Err(format!("{method} failed for ResourceClaim {}: {error}", claim.name));
        }
        count += 1;
    }
    match claims.len() - count {
        0 => Ok(()),
        missing => Err(format!("{method} skipped {missing} ResourceClaims")),
    }
}

impl Dra {
    /// Takes over what an earlier run knew.
    pub(crate) fn open(
        root: &Path,
        node: &str,
        client: Client,
        tasks: Tasks,
    ) -> Result<Arc<Dra>, String> {
        Ok(Arc::new(Dra {
            claims: Mutex::new(Claims::open(root)?),
            plugins: DraPlugins::default(),
            health: Mutex::default(),
            client,
            node: node.to_owned(),
            tasks,
            figures: Figures::default(),
            locks: Mutex::default(),
            wipes: Mutex::default(),
            affected: Mutex::default(),
            news: Notify::new(),
        }))
    }

    /// No driver has registered yet, and some may never again.
    pub(crate) async fn wipe_slices(&self) {
        slices::wipe(&self.client, &self.node, "").await;
    }

    /// Prepares all claims of the pod.
    pub(crate) async fn prepare(&self, pod: &Pod) -> Result<(), String> {
        let spec = spec_of(pod);
        let has_any = spec.resource_claims.as_ref().is_some_and(|list| !list.is_empty());
        if !has_any && extended(pod).is_none() {
            return Ok(());
        }
        let begun = tokio::time::Instant::now();
        let done = self.prepare_all(pod).await;
        self.took("PrepareResources", done.is_err(), begun);
        done.map_err(|why| format!("prepare dynamic resources: {why}"))
    }

    fn took(&self, operation: &str, failed: bool, begun: tokio::time::Instant) {
        let failed = if failed { "true" } else { "false" };
        let histogram = self.figures.operations.with_label_values(&[operation, failed]);
        histogram.observe(begun.elapsed().as_secs_f64());
    }

    async fn prepare_all(&self, pod: &Pod) -> Result<(), String> {
        // First everything is looked at, so that a pod that fails here leaves nothing to be undone.
        let wanted = self.wanted(pod).await?;
        let keys: BTreeSet<Key> = wanted.iter().map(|w| w.info.key()).collect();
        let _alone = self.alone(keys).await;
        let mut batches: BTreeMap<String, (Arc<DraPlugin>, Vec<wire::Claim>)> = BTreeMap::new();
        let mut unprepared = Vec::new();
        {
            let mut claims = lock(&self.claims);
            for one in &wanted {
                if !claims.begin(&one.info, uid_of(pod))? {
                    continue;
                }
                unprepared.push(one.info.key());
                for (driver, plugin) in &one.plugins {
                    let batch = batches.entry(driver.clone());
                    let batch = batch.or_insert_with(|| (plugin.clone(), Vec::new()));
                    batch.1.push(wire_claim(&one.info));
                }
            }
            claims.store()?;
        }
        for (driver, (plugin, claims)) in batches {
            self.prepare_batch(&driver, &plugin, claims).await?;
        }
        let mut claims = lock(&self.claims);
        unprepared.iter().for_each(|key| claims.set_prepared(key));
        claims.store()
    }

    async fn prepare_batch(
        &self,
        driver: &str,
        plugin: &DraPlugin,
        claims: Vec<wire::Claim>,
    ) -> Result<(), String> {
        let method = "NodePrepareResources";
        let answer = plugin.prepare(claims.clone()).await;
        let answer = answer.map_err(|why| format!("{method}: {why}"))?;
        let errors = answer.claims.iter().map(|(uid, claim)| (uid, claim.error.as_str()));
        let done = complete(&claims, errors, method);
        let mut known = lock(&self.claims);
        for (uid, prepared) in answer.claims {
            // What went well is kept in any case.
            if let Ok(claim) = asked(&claims, &uid, method)
                && prepared.error.is_empty()
            {
                let devices = prepared.devices.into_iter().map(kept).collect();
                known.set_devices(&(claim.namespace.clone(), claim.name.clone()), driver, devices);
            }
        }
        done
    }

    async fn wanted(&self, pod: &Pod) -> Result<Vec<Wanted>, String> {
        let spec = spec_of(pod);
        let mut wanted = Vec::new();
        for entry in spec.resource_claims.iter().flatten() {
            let (name, generated) = match named(pod, entry)? {
                ClaimName::Given(name) => (name, false),
                ClaimName::Generated(name) => (name, true),
                ClaimName::NotNeeded => continue,
            };
            wanted.push(self.one(pod, name, generated).await?);
        }
        if let Some(name) = extended(pod) {
            wanted.push(self.one(pod, name, false).await?);
        }
        Ok(wanted)
    }

    async fn one(&self, pod: &Pod, name: &str, generated: bool) -> Result<Wanted, String> {
        let namespace = namespace_of(pod);
        let fetched = self.client.get::<ResourceClaim>(namespace, name);
        let fetched = tokio::time::timeout(FETCH_MAX, fetched).await;
        let late = |_| format!("fetch ResourceClaim {name}: context deadline exceeded");
        let claim = fetched.map_err(late)?;
        let claim = claim.map_err(|e| format!("fetch ResourceClaim {name}: {e}"))?;
        if generated {
            devices::is_for_pod(pod, &claim)?;
        }
        let uid = claim.metadata.uid.as_deref().unwrap_or("");
        if !devices::is_reserved_for(&claim, uid_of(pod)) {
            return Err(format!(
                "pod {} ({}) is not allowed to use ResourceClaim {name} ({uid})",
                name_of(pod),
                uid_of(pod)
            ));
        }
        let allocation = claim.status.as_ref().and_then(|s| s.allocation.as_ref());
        let allocation =
            allocation.ok_or_else(|| format!("ResourceClaim {name}: not allocated"))?;
        let results = allocation.devices.iter().flat_map(|d| d.results.iter().flatten());
        let drivers: BTreeSet<String> = results.map(|result| result.driver.clone()).collect();
        let mut plugins = BTreeMap::new();
        for driver in &drivers {
            plugins.insert(driver.clone(), self.plugins.get(driver)?);
        }
        let key = (namespace.to_owned(), name.to_owned());
        Ok(Wanted { info: ClaimInfo::new(&key, uid, drivers), plugins })
    }

    /// Waits until nothing else is done about these claims.
    async fn alone(&self, keys: BTreeSet<Key>) -> Vec<OwnedMutexGuard<()>> {
        let mut held = Vec::with_capacity(keys.len());
        // In the order of their names: no two wait for each other.
        for key in keys {
            let mutex = lock(&self.locks).entry(key).or_default().clone();
            held.push(mutex.lock_owned().await);
        }
        held
    }

    /// Whether the pod has claims to be unprepared.
    pub(crate) fn holds(&self, uid: &str) -> bool {
        !lock(&self.claims).of_pod(uid).is_empty()
    }

    /// The pod of this uid needs its claims no more.
    pub(crate) async fn unprepare(&self, uid: &str) -> Result<(), String> {
        if !self.holds(uid) {
            return Ok(());
        }
        let begun = tokio::time::Instant::now();
        let done = self.unprepare_all(uid).await;
        self.took("UnprepareResources", done.is_err(), begun);
        done.map_err(|why| format!("unprepare dynamic resources: {why}"))
    }

    async fn unprepare_all(&self, uid: &str) -> Result<(), String> {
        let keys: BTreeSet<Key> = lock(&self.claims).of_pod(uid).into_iter().collect();
        let _alone = self.alone(keys.clone()).await;
        let mut batches = BTreeMap::<String, Vec<wire::Claim>>::new();
        let mut last = Vec::new();
        for key in &keys {
            let Release::Last(info) = lock(&self.claims).release(key, uid) else { continue };
            for driver in info.driver_state.keys() {
                batches.entry(driver.clone()).or_default().push(wire_claim(&info));
            }
            last.push(key);
        }
        let method = "NodeUnprepareResources";
        for (driver, claims) in batches {
            let plugin = self.plugins.get(&driver)?;
            let answer = plugin.unprepare(claims.clone()).await;
            let answer = answer.map_err(|why| format!("{method}: {why}"))?;
            let errors = answer.claims.iter().map(|(uid, claim)| (uid, claim.error.as_str()));
            complete(&claims, errors, method)?;
        }
        let mut claims = lock(&self.claims);
        last.iter().for_each(|key| claims.forget(key));
        // Locks of claims that nobody uses.
        lock(&self.locks).retain(|key, _| claims.get(key).is_some() || !keys.contains(key));
        claims.store()
    }

    /// Unprepares what pods have that are not active.
    pub(crate) async fn reconcile(&self, is_active: impl Fn(&str) -> bool) {
        let pods = lock(&self.claims).pods();
        for uid in pods.into_iter().filter(|uid| !is_active(uid)) {
            if let Err(error) = self.unprepare(&uid).await {
                tracing::warn!(pod = uid, error, "claims of a pod that is gone not unprepared");
            }
        }
    }

    /// In Prometheus' text form.
    pub(crate) fn metrics(&self) -> String {
        let in_use = lock(&self.claims).in_use();
        let family = (
            "dra_resource_claims_in_use",
            "gauge",
            "The number of ResourceClaims that are currently in use on the node, by driver name (driver_name label value) and across all drivers (special value <any> for driver_name). Note that the sum of all by-driver counts is not the total number of in-use ResourceClaims because the same ResourceClaim might use devices from different drivers. Instead, use the count for the <any> driver_name.",
        );
        let counts =
            in_use.iter().map(|(driver, n)| ([("driver_name", driver.as_str())], *n as f64));
        self.figures.text() + &telemetry::family(family, counts)
    }

    /// Pods whose devices changed since this was asked last.
    pub(crate) fn take_affected(&self) -> BTreeSet<String> {
        std::mem::take(&mut lock(&self.affected))
    }

    fn heard(&self, driver: &str, devices: Vec<wire::DeviceHealth>) {
        let changed = lock(&self.health).update(driver, devices);
        if changed.is_empty() {
            return;
        }
        self.affect(driver, |device| {
            changed.contains(&(device.pool_name.clone(), device.device_name.clone()))
        });
    }

    /// Nothing is known any more of the health of the driver's devices.
    fn silent(&self, driver: &str) {
        lock(&self.health).clear(driver);
        self.affect(driver, |_| true);
    }

    /// Pods that have such devices of the driver show them anew.
    fn affect(&self, driver: &str, is: impl Fn(&Device) -> bool) {
        let claims = lock(&self.claims);
        let touched =
            claims.list().filter(|info| info.devices().any(|(of, d)| of == driver && is(d)));
        lock(&self.affected).extend(touched.flat_map(ClaimInfo::pods).cloned());
        self.news.notify_one();
    }
}

fn kept(device: wire::Device) -> Device {
    let some = |list: Vec<String>| Some(list).filter(|list| !list.is_empty());
    Device {
        pool_name: device.pool_name,
        device_name: device.device_name,
        share_id: device.share_id,
        request_names: some(device.request_names),
        cdi_device_ids: some(device.cdi_device_ids),
    }
}
