//! Adopt and release: dependents are claimed by label and by controller reference.

use std::sync::Arc;

use api::selector::LabelSelector;
use client::{Client, Error, Patch, Resource};
use serde_json::{Value, json};

use crate::meta::{controller, managed_by, matches, may_adopt, name, namespace, uid};

/// Objects of an owner's namespace, sorted by what the owner has to do with them.
#[derive(Debug)]
pub(crate) struct Candidates<K> {
    pub(crate) owned: Vec<Arc<K>>,
    pub(crate) adopt: Vec<Arc<K>>,
    pub(crate) release: Vec<Arc<K>>,
}

// Not derived: the derive asks that `K` has a default, too.
impl<K> Default for Candidates<K> {
    fn default() -> Candidates<K> {
        Candidates { owned: Vec::new(), adopt: Vec::new(), release: Vec::new() }
    }
}

impl<K: Resource> Candidates<K> {
    /// `objects` are the owner's dependents and the orphans of its namespace. Those that do not `fit` are
    /// released; orphans that are not `adoptable` stay orphans.
    pub(crate) fn sort<O: Resource>(
        owner: &O,
        fits: impl Fn(&K) -> bool,
        objects: Vec<Arc<K>>,
        adoptable: impl Fn(&K) -> bool,
    ) -> Candidates<K> {
        let ends = owner.metadata().deletion_timestamp.is_some();
        let mut sorted = Candidates::default();
        for object in objects {
            let meta = object.metadata();
            let fits = fits(&object);
            match controller(meta) {
                Some(owned_by) if owned_by.uid != uid(owner.metadata()) => {}
                Some(_) if fits => sorted.owned.push(object),
                Some(_) if ends => {}
                Some(_) => sorted.release.push(object),
                None => {
                    if fits && !ends && meta.deletion_timestamp.is_none() && adoptable(&object) {
                        sorted.adopt.push(object);
                    }
                }
            }
        }
        sorted
    }
}

/// Whether the selector takes an object by its labels.
pub(crate) fn selected_by<K: Resource>(selector: LabelSelector) -> impl Fn(&K) -> bool {
    move |object| matches(&selector, object.metadata().labels.as_ref())
}

/// Adopts and releases; the objects that the owner has afterwards. `None` if the owner must not adopt,
/// because the server says that it ends or is another: its informer will say so, too.
pub(crate) async fn claim<O: Resource, K: Resource>(
    client: &Client,
    owner: &O,
    candidates: Candidates<K>,
) -> Result<Option<Vec<Arc<K>>>, Error> {
    claim_with_finalizer(client, owner, candidates, None).await
}

/// Like [`claim`]; adopted objects get the finalizer, released ones lose it.
pub(crate) async fn claim_with_finalizer<O: Resource, K: Resource>(
    client: &Client,
    owner: &O,
    candidates: Candidates<K>,
    finalizer: Option<&str>,
) -> Result<Option<Vec<Arc<K>>>, Error> {
    let Candidates { mut owned, adopt, release } = candidates;
    if !adopt.is_empty() && !may_adopt(client, owner).await? {
        return Ok(None);
    }
    for object in adopt {
        let mut meta = json!({"uid": object.metadata().uid,
            "ownerReferences": [managed_by(owner)]});
        if let Some(finalizer) = finalizer {
            meta["finalizers"] = json!([finalizer]);
        }
        if let Some(adopted) = patch(client, &*object, meta).await? {
            owned.push(Arc::new(adopted));
        }
    }
    for object in release {
        let mut meta = json!({"uid": object.metadata().uid,
            "ownerReferences": [{"$patch": "delete", "uid": owner.metadata().uid}]});
        if let Some(finalizer) = finalizer {
            meta["$deleteFromPrimitiveList/finalizers"] = json!([finalizer]);
        }
        patch(client, &*object, meta).await?;
    }
    Ok(Some(owned))
}

/// The object as patched; `None` if it is gone, or another has its name by now.
async fn patch<K: Resource>(client: &Client, object: &K, meta: Value) -> Result<Option<K>, Error> {
    let body = Patch::Strategic(json!({"metadata": meta}));
    let (namespace, name) = (namespace(object.metadata()), name(object.metadata()));
    match client.patch::<K>(namespace, name, &body).await {
        Ok(patched) => Ok(Some(patched)),
        // A uid that differs is refused as invalid.
        Err(error) if error.is_not_found() || error.is_invalid() => Ok(None),
        Err(error) => Err(error),
    }
}
