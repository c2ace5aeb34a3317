//! ResourceQuota: charges an object to its namespace's quotas before it is stored.
//!
//! A charge is a compare-and-write of the quota's status: whoever comes second sees what the first
//! has used. Charges of one namespace wait for each other here, so that only another server's, or
//! the controller's recount, can come between.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;

use ::admission::quota::{self, Amounts, Request};
use api::{Draft, Object, Status};
use serde_json::Value;
use store::{Expect, Write, WriteError};
use tokio::sync::Mutex;

use crate::call::Call;
use crate::meta;
use crate::verbs::write_failure;

/// Namespaces share this many queues.
const QUEUES: usize = 64;
/// Tries while others write the same quota.
const TRIES: usize = 32;
const RESOURCE: (&str, &str, &str) = ("", "v1", "resourcequotas");

/// The queues in which charges wait.
#[derive(Debug)]
pub(crate) struct Queues([Mutex<()>; QUEUES]);

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

pub(super) async fn charge(
    call: &Call<'_>,
    old: Option<&Value>,
    new: &Value,
) -> Result<(), Status> {
    let (row, subresource) = (call.row, call.row.subresource);
    let request = Request { group: row.group, resource: row.name, subresource, old, new };
    if !row.namespaced || !request.counts() || quotas(call).is_empty() {
        return Ok(());
    }
    // A creation that will fail for that costs nothing.
    let key = row.key(&call.info.namespace, meta::text(new, "name"));
    if old.is_none() && call.server.collection(row).get(&key).is_some() {
        return Ok(());
    }
    let _turn = call.server.quota_queues.of(&call.info.namespace).lock().await;
    let mut charged = Vec::new();
    for _ in 0..TRIES {
        if try_charge(call, &request, &mut charged).await? {
            return Ok(());
        }
    }
    Err(Status::modified("", "resourcequotas", charged.first().map_or("", String::as_str)))
}

/// Charges the quotas not charged yet, unless one refuses; false when another write came between.
async fn try_charge(
    call: &Call<'_>,
    request: &Request<'_>,
    charged: &mut Vec<String>,
) -> Result<bool, Status> {
    let mut stored = quotas(call);
    stored.retain(|quota| !charged.iter().any(|name| **name == *quota.meta().name));
    let trees: Vec<Value> = stored.iter().map(|quota| quota.to_value()).collect();
    let used = quota::charge(&trees, request, call.now).map_err(|why| {
        let row = call.row;
        Status::forbidden(row.group, row.name, meta::text(request.new, "name"), &why)
    })?;
    if call.dry_run {
        return Ok(true);
    }
    let mut complete = true;
    for ((quota, tree), used) in stored.iter().zip(trees).zip(used) {
        let Some(used) = used else { continue };
        match write(call, quota, tree, &used).await {
            Ok(_) => charged.push(quota.meta().name.to_string()),
            Err(WriteError::Conflict(_)) => complete = false,
            Err(other) => {
                let row = call.server.registry.find(RESOURCE.0, RESOURCE.1, RESOURCE.2, "");
                return Err(write_failure(other, row.expect("built in"), &quota.meta().name));
            }
        }
    }
    Ok(complete)
}

async fn write(
    call: &Call<'_>,
    quota: &Object,
    mut tree: Value,
    used: &Amounts,
) -> Result<Arc<Object>, WriteError> {
    tree["status"]["used"] = quota::to_json(used);
    let (group, version, resource) = RESOURCE;
    let row = call.server.registry.find(group, version, resource, "").expect("built in");
    let write = Write {
        collection: call.server.collection(row),
        key: row.key(&quota.meta().namespace, &quota.meta().name),
        expect: Expect::Revision(quota.revision()),
        draft: Some(Draft::new(&tree, row.selectable)),
    };
    call.server.store.write(write).await
}

fn quotas(call: &Call<'_>) -> Vec<Arc<Object>> {
    let (group, version, resource) = RESOURCE;
    let quotas = call.server.collection_of(group, version, resource);
    let prefix = format!("{}/", call.info.namespace);
    let page = quotas.list(&prefix, None, 0, usize::MAX, &|_| true);
    page.map(|page| page.objects).unwrap_or_default()
}
