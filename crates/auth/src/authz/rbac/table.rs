//! All bindings with their roles, as they are now. A change of one object reads that object only: what was read
//! of the others is kept.

use std::collections::HashMap;
use std::sync::Arc;

use api::Object;
use serde::de::DeserializeOwned;

use super::{Binding, Missing, Role, Rule, Subject};
use crate::authz::Attributes;
use crate::objects::Collection;
use crate::user::User;

/// Objects of one collection, read.
struct Read<T> {
    last_change: Option<u64>,
    /// With the revision that was read; absent what cannot be read.
    by_key: HashMap<Box<str>, (u64, Option<Arc<T>>)>,
}

impl<T> Default for Read<T> {
    fn default() -> Read<T> {
        Read { last_change: None, by_key: HashMap::new() }
    }
}

impl<T> Read<T> {
    /// Reads what changed; whether anything did.
    fn refresh<D: DeserializeOwned>(
        &mut self,
        collection: &dyn Collection,
        made: impl Fn(&Object, D) -> T,
    ) -> bool {
        let last_change = collection.last_change();
        if self.last_change == Some(last_change) {
            return false;
        }
        let mut before = std::mem::take(&mut self.by_key);
        for object in collection.list("", &|_| true) {
            let key = key(&object.meta().namespace, &object.meta().name);
            let kept = before.remove(&*key).filter(|(revision, _)| *revision == object.revision());
            let read = kept.unwrap_or_else(|| {
                let decoded = object.decode::<D>().ok();
                (object.revision(), decoded.map(|decoded| Arc::new(made(&object, decoded))))
            });
            self.by_key.insert(key, read);
        }
        self.last_change = Some(last_change);
        true
    }

    fn get(&self, key: &str) -> Option<&Arc<T>> {
        self.by_key.get(key)?.1.as_ref()
    }

    /// By key.
    fn all(&self) -> Vec<&Arc<T>> {
        let mut all: Vec<_> =
            self.by_key.iter().filter_map(|(key, (_, read))| Some((key, read.as_ref()?))).collect();
        all.sort_unstable_by_key(|(key, _)| *key);
        all.into_iter().map(|(_, read)| read).collect()
    }
}

fn key(namespace: &str, name: &str) -> Box<str> {
    match namespace {
        "" => name.into(),
        namespace => format!("{namespace}/{name}").into(),
    }
}

/// A binding as it is stored.
struct Bound {
    /// Empty when it holds everywhere.
    namespace: Box<str>,
    name: Box<str>,
    subjects: Vec<Subject>,
    is_of_cluster_role: bool,
    role: String,
}

impl Bound {
    fn of(object: &Object, binding: Binding) -> Bound {
        Bound {
            namespace: object.meta().namespace.clone(),
            name: object.meta().name.clone(),
            subjects: binding.subjects.unwrap_or_default(),
            is_of_cluster_role: binding.role_ref.kind != "Role",
            role: binding.role_ref.name,
        }
    }
}

/// One binding with its role's rules looked up.
pub(super) struct Grant {
    bound: Arc<Bound>,
    rules: Result<Arc<Vec<Rule>>, Missing>,
}

impl Grant {
    /// The subject that is the user.
    pub(super) fn subject(&self, user: &User) -> Option<&Subject> {
        self.bound.subjects.iter().find(|subject| subject.is(user, &self.bound.namespace))
    }

    pub(super) fn allows(&self, a: &Attributes<'_>) -> bool {
        self.rules().is_ok_and(|rules| rules.iter().any(|rule| rule.allows(a)))
    }

    pub(super) fn rules(&self) -> Result<&[Rule], &Missing> {
        self.rules.as_ref().map(|rules| rules.as_slice())
    }

    /// The binding, its role and one of its subjects, as reasons tell them.
    pub(super) fn told(&self, subject: &Subject) -> String {
        let Bound { namespace, name, is_of_cluster_role, role, .. } = &*self.bound;
        let kind = if *is_of_cluster_role { "ClusterRole" } else { "Role" };
        let binding = match &**namespace {
            "" => format!("ClusterRoleBinding {name:?}"),
            namespace => format!("RoleBinding {:?}", format!("{name}/{namespace}")),
        };
        format!("{binding} of {kind} {role:?} to {}", subject.told(namespace))
    }
}

/// All bindings: those that hold everywhere, and those of each namespace.
#[derive(Default)]
pub(super) struct Grants {
    everywhere: Vec<Grant>,
    by_namespace: HashMap<Box<str>, Vec<Grant>>,
}

impl Grants {
    /// The bindings that can apply to a request.
    pub(super) fn for_request(&self, a: &Attributes<'_>) -> impl Iterator<Item = &Grant> {
        self.within(if a.path.is_some() { "" } else { a.namespace })
    }

    /// The bindings that apply in a namespace.
    pub(super) fn within(&self, namespace: &str) -> impl Iterator<Item = &Grant> + use<'_> {
        let local = self.by_namespace.get(namespace).into_iter().flatten();
        self.everywhere.iter().chain(local)
    }
}

/// What was read of the four collections, and what follows from it.
#[derive(Default)]
pub(super) struct Table {
    roles: Read<Vec<Rule>>,
    bindings: Read<Bound>,
    cluster_roles: Read<Vec<Rule>>,
    cluster_bindings: Read<Bound>,
    grants: Arc<Grants>,
}

impl Table {
    /// The grants as of now; the collections are those of `Rbac::sources`.
    pub(super) fn grants(&mut self, sources: &[Arc<dyn Collection>; 4]) -> Arc<Grants> {
        let [roles, bindings, cluster_roles, cluster_bindings] = sources;
        let rules = |_: &Object, role: Role| role.rules.unwrap_or_default();
        // Each is asked, also when one before it has changed.
        let changed = [
            self.roles.refresh(&**roles, rules),
            self.bindings.refresh(&**bindings, Bound::of),
            self.cluster_roles.refresh(&**cluster_roles, rules),
            self.cluster_bindings.refresh(&**cluster_bindings, Bound::of),
        ];
        if changed.contains(&true) {
            self.grants = Arc::new(self.join());
        }
        self.grants.clone()
    }

    fn join(&self) -> Grants {
        let everywhere = self.cluster_bindings.all().into_iter().map(|b| self.grant(b)).collect();
        let mut by_namespace: HashMap<Box<str>, Vec<Grant>> = HashMap::new();
        for bound in self.bindings.all() {
            by_namespace.entry(bound.namespace.clone()).or_default().push(self.grant(bound));
        }
        Grants { everywhere, by_namespace }
    }

    fn grant(&self, bound: &Arc<Bound>) -> Grant {
        let (rules, resource) = match bound.is_of_cluster_role {
            true => (self.cluster_roles.get(&bound.role), "clusterroles"),
            false => (self.roles.get(&key(&bound.namespace, &bound.role)), "roles"),
        };
        let missing = || Missing { resource, name: bound.role.clone() };
        Grant { bound: bound.clone(), rules: rules.cloned().ok_or_else(missing) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use serde_json::{Value, json};

    use super::*;

    /// Objects with the revisions that they were put at.
    #[derive(Default)]
    struct Stored(Mutex<(u64, Vec<Arc<Object>>)>);

    impl Stored {
        fn put(&self, value: &Value) {
            let mut state = self.0.lock().expect("no panic here");
            state.0 += 1;
            let object = Arc::new(Object::new(value, state.0, &[]));
            let is_it = |o: &Arc<Object>| {
                (&o.meta().namespace, &o.meta().name)
                    == (&object.meta().namespace, &object.meta().name)
            };
            state.1.retain(|o| !is_it(o));
            state.1.push(object);
        }
    }

    impl Collection for Stored {
        fn get(&self, _: &str) -> Option<Arc<Object>> {
            None
        }

        fn list(&self, _: &str, _: &dyn Fn(&Object) -> bool) -> Vec<Arc<Object>> {
            self.0.lock().expect("no panic here").1.clone()
        }

        fn list_by(&self, _: (&str, &str), _: &str) -> Vec<Arc<Object>> {
            Vec::new()
        }

        fn last_change(&self) -> u64 {
            self.0.lock().expect("no panic here").0
        }
    }

    fn binding(namespace: &str, name: &str, role: (&str, &str), user: &str) -> Value {
        json!({"metadata": {"namespace": namespace, "name": name},
            "roleRef": {"kind": role.0, "name": role.1},
            "subjects": [{"kind": "User", "name": user}]})
    }

    fn role(namespace: &str, name: &str, verb: &str) -> Value {
        json!({"metadata": {"namespace": namespace, "name": name},
            "rules": [{"verbs": [verb], "apiGroups": [""], "resources": ["pods"]}]})
    }

    #[test]
    fn bindings_hold_where_they_are_with_the_roles_as_they_are_now() {
        let stored: [Arc<Stored>; 4] = std::array::from_fn(|_| Arc::default());
        let sources = stored.clone().map(|one| one as Arc<dyn Collection>);
        let [roles, bindings, cluster_roles, cluster_bindings] = &stored;
        let mut table = Table::default();
        let mut may = |user: &str, verb: &str, namespace: &str| {
            let user = User::new(user, &[]);
            let asked = Attributes { verb, resource: "pods", namespace, ..Attributes::default() };
            let grants = table.grants(&sources);
            grants.for_request(&asked).any(|g| g.subject(&user).is_some() && g.allows(&asked))
        };
        bindings.put(&binding("a", "b", ("Role", "r"), "anna"));
        assert!(!may("anna", "get", "a"), "there is no role yet");
        roles.put(&role("a", "r", "get"));
        roles.put(&role("z", "r", "delete"));
        assert!(may("anna", "get", "a") && !may("anna", "get", "z") && !may("anna", "get", ""));
        assert!(!may("anna", "delete", "a"), "that is another namespace's role");
        cluster_roles.put(&role("", "r", "list"));
        bindings.put(&binding("a", "c", ("ClusterRole", "r"), "bert"));
        cluster_bindings.put(&binding("", "all", ("ClusterRole", "r"), "carl"));
        assert!(may("bert", "list", "a") && !may("bert", "list", "z"));
        assert!(may("carl", "list", "z") && may("carl", "list", "") && !may("carl", "get", "z"));
        cluster_roles.put(&role("", "r", "watch"));
        assert!(may("carl", "watch", "z") && !may("carl", "list", "z"));
        bindings.put(&binding("a", "b", ("Role", "r"), "dora"));
        assert!(may("dora", "get", "a") && !may("anna", "get", "a"));
    }

    #[test]
    fn what_did_not_change_is_not_read_again() {
        let (stored, read) = (Stored::default(), AtomicUsize::new(0));
        let mut known: Read<()> = Read::default();
        let mut refresh = || {
            known.refresh(&stored, |_, _: Value| {
                read.fetch_add(1, Ordering::Relaxed);
            })
        };
        for name in ["a", "b", "c"] {
            stored.put(&role("", name, "get"));
        }
        assert!(refresh() && !refresh());
        stored.put(&role("", "b", "list"));
        assert!(refresh());
        assert_eq!(read.load(Ordering::Relaxed), 4);
    }
}
