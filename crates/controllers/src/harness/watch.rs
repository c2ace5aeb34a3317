//! Which owners a changed dependent concerns.

use client::{Informer, Queue, Resource};

use crate::meta::{Key, controller, key, namespace};

/// Queues each object of the kind that changes.
pub(crate) fn enqueue<K: Resource>(objects: &Informer<K>, queue: &Queue<Key>) {
    let queue = queue.clone();
    objects.on_change(move |change| queue.add(key(&**change.object())));
}

/// Queues the owners of dependents that change: the controller before and after, or, of an orphan,
/// everybody who would adopt it.
pub(crate) fn watch_dependents<O: Resource, K: Resource>(
    dependents: &Informer<K>,
    owners: &Informer<O>,
    queue: &Queue<Key>,
    selects: fn(&O, &K) -> bool,
) {
    let (owners, queue) = (owners.clone(), queue.clone());
    dependents.on_change(move |change| {
        for object in [Some(change.object()), change.old()].into_iter().flatten() {
            let namespace = namespace(object.metadata());
            match controller(object.metadata()) {
                Some(owner) if owner.kind == O::KIND && owner.api_version == O::API_VERSION => {
                    queue.add((namespace.to_owned(), owner.name.clone()));
                }
                Some(_) => {}
                None => {
                    let all = owners.list_namespace(namespace);
                    all.iter().filter(|o| selects(o, object)).for_each(|o| queue.add(key(&**o)));
                }
            }
        }
    });
}
