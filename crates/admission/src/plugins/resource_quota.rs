//! ResourceQuota: charges an object to its namespace's quotas before it is stored.
//!
//! A charge is a compare-and-write of the quota's status: the second of two charges sees what the first
//! has used. Charges of one namespace wait for each other here, so that only another server's, or
//! the controller's recount, can come between.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;

use api::tree::metadata_text;
use api::{Object, Status};
use serde_json::Value;
use tokio::sync::Mutex;

use crate::attributes::{Attributes, Gvr, Operation};
use crate::config::Configuration;
use crate::plugin::{Decision, Plugin, Verdict};
use crate::quota::{self, LimitedResource, Request};
use validation::items;

/// Namespaces share this many queues.
const QUEUES: usize = 64;
/// Tries while others write the same quota.
const TRIES: usize = 32;
const QUOTAS: Gvr = ("", "v1", "resourcequotas");

/// The queues in which charges wait.
#[derive(Debug)]
struct Queues([Mutex<()>; QUEUES]);

impl Default for Queues {
    fn default() -> Queues {
        Queues(std::array::from_fn(|_| Mutex::default()))
    }
}

impl Queues {
    fn of(&self, namespace: &str) -> &Mutex<()> {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(namespace);
        &self.0[(hash % QUEUES as u64) as usize]
    }
}

/// ResourceQuota. Last of all, so that no other refusal costs anything.
#[derive(Debug, Default)]
pub(super) struct ResourceQuota {
    queues: Queues,
    /// What may be used only where a quota covers it.
    limited: Vec<LimitedResource>,
}

impl ResourceQuota {
    /// Of the plugin's configuration.
    pub(super) fn read(configuration: &Configuration) -> Result<ResourceQuota, String> {
        const KINDS: [&str; 2] = ["ResourceQuotaConfiguration", "Configuration"];
        let own = configuration.of("ResourceQuota");
        let kind = own["kind"].as_str().unwrap_or("");
        if !own.is_null() && !KINDS.contains(&kind) {
            return Err(format!("no kind {kind:?} is registered"));
        }
        let limited = items(own, "limitedResources").map(LimitedResource::read).collect();
        Ok(ResourceQuota { limited, ..ResourceQuota::default() })
    }
}

impl Plugin for ResourceQuota {
    fn name(&self) -> &'static str {
        "ResourceQuota"
    }

    fn handles(&self, request: &Attributes<'_>) -> bool {
        let writes = matches!(request.operation, Operation::Create | Operation::Update);
        writes && request.row.namespaced
    }

    fn validate<'a>(&'a self, request: &'a Attributes<'a>, new: &'a Value) -> Decision<'a> {
        let (group, resource, subresource) = request.path();
        let counted = Request { group, resource, subresource, old: request.old, new };
        // A creation that will fail for its name costs nothing.
        let is_taken = || {
            let key = request.row.key(request.namespace(), metadata_text(new, "name"));
            request.old.is_none() && request.cluster.exists(request.row, &key)
        };
        let is_free = self.limited.is_empty() && quotas(request).is_empty();
        if !counted.counts() || is_free || is_taken() {
            return Decision::ALLOWED;
        }
        Decision::Later(Box::pin(self.charge(request, counted)))
    }
}

impl ResourceQuota {
    /// Charges the quotas not charged yet, unless one refuses; false when another write came between.
    async fn try_charge(
        &self,
        request: &Attributes<'_>,
        counted: &Request<'_>,
        charged: &mut Vec<String>,
    ) -> Result<bool, Status> {
        let mut stored = quotas(request);
        stored.retain(|quota| !charged.iter().any(|name| **name == *quota.meta().name));
        let trees: Vec<Value> = stored.iter().map(|quota| quota.to_value()).collect();
        self.check_limited(request, counted)?;
        let used = quota::charge(&trees, counted, request.now)
            .map_err(|why| request.forbid(counted.new, &why))?;
        if request.dry_run {
            return Ok(true);
        }
        let mut complete = true;
        for ((quota, mut tree), used) in stored.iter().zip(trees).zip(used) {
            let Some(used) = used else { continue };
            tree["status"]["used"] = quota::to_json(&used);
            match request.cluster.replace(QUOTAS, quota, tree).await? {
                true => charged.push(quota.meta().name.to_string()),
                false => complete = false,
            }
        }
        Ok(complete)
    }

    fn check_limited(&self, request: &Attributes<'_>, counted: &Request<'_>) -> Verdict {
        if self.limited.is_empty() {
            return Ok(());
        }
        let trees: Vec<Value> = quotas(request).iter().map(|quota| quota.to_value()).collect();
        let covered = quota::check_covered(&self.limited, &trees, counted, request.now);
        covered.map_err(|why| request.forbid(counted.new, &why))
    }

    async fn charge<'a>(&'a self, request: &'a Attributes<'a>, counted: Request<'a>) -> Verdict {
        let _turn = self.queues.of(request.namespace()).lock().await;
        let mut charged = Vec::new();
        for _ in 0..TRIES {
            if self.try_charge(request, &counted, &mut charged).await? {
                return Ok(());
            }
        }
        Err(Status::modified("", "resourcequotas", charged.first().map_or("", String::as_str)))
    }
}

fn quotas(request: &Attributes<'_>) -> Vec<Arc<Object>> {
    request.cluster.list(QUOTAS, &format!("{}/", request.namespace()))
}
