//! Aggregated APIs: groups and versions that another server serves, as APIService objects say
//! (`kube-aggregator`).
//!
//! [`Aggregator::find`] says who serves a path. What an extension serves is learnt by the availability loop,
//! never by a request: an extension that is dead costs discovery nothing.

mod availability;
mod connection;
mod discovery;
mod proxy;

use std::sync::{Arc, PoisonError, RwLock};

use api::Object;
use serde_json::Value;
use store::{Collection, Store};

pub(crate) use self::discovery::Served;
use connection::Connector;
pub use connection::FrontProxy;

/// An APIService with a service.
pub(crate) struct Extension {
    pub(crate) name: Box<str>,
    pub(crate) group: Box<str>,
    pub(crate) version: Box<str>,
    /// The object's uid and generation: the spec that this was read from.
    state: (Box<str>, i64),
    /// `groupPriorityMinimum`, `versionPriority`.
    priorities: (i64, i64),
    connector: Connector,
    /// The resources of the group's version, as the extension told them last.
    served: RwLock<Option<Arc<Value>>>,
    /// Its OpenAPI document of version 2, as it published it last.
    published: RwLock<Option<Arc<Published>>>,
}

/// An OpenAPI document of version 2.
pub(crate) struct Published {
    /// The extension's, or one of the text.
    pub(crate) tag: String,
    pub(crate) json: bytes::Bytes,
}

impl Extension {
    /// The path of its resources.
    fn path(&self) -> String {
        format!("/apis/{}/{}", self.group, self.version)
    }

    fn served(&self) -> Option<Arc<Value>> {
        self.served.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn published(&self) -> Option<Arc<Published>> {
        self.published.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn publish(&self, document: Option<Published>) {
        let mut published = self.published.write().unwrap_or_else(PoisonError::into_inner);
        *published = document.map(Arc::new);
    }

    fn learn(&self, resources: Value) {
        *self.served.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(resources));
    }
}

/// An extension, and whether the object says that it is available.
#[derive(Clone)]
pub(crate) struct Present {
    pub(crate) extension: Arc<Extension>,
    pub(crate) is_available: bool,
}

#[derive(Default)]
struct Extensions {
    /// The last change of the objects that this is made from, and how often the front proxy's certificate was
    /// exchanged before.
    seen: Option<(u64, u64)>,
    all: Vec<Present>,
}

/// A version of a group that this process serves beside its resources, unless an APIService names a server for it.
pub(crate) struct Local {
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    /// `groupPriorityMinimum`, `versionPriority`.
    pub(crate) priorities: (i64, i64),
    /// Its `APIResourceList`.
    pub(crate) resources: Value,
}

/// The extensions of a server.
pub(crate) struct Aggregator {
    local: Option<Local>,
    store: Store,
    services: Arc<dyn webhook::Services>,
    /// With the number of exchanges before.
    front_proxy: RwLock<(u64, Option<Arc<FrontProxy>>)>,
    current: RwLock<Arc<Extensions>>,
    /// All extensions were asked whether they are there.
    checked: tokio::sync::Notify,
}

impl Aggregator {
    pub(crate) fn new(
        store: Store,
        services: Arc<dyn webhook::Services>,
        front_proxy: Option<FrontProxy>,
        local: Option<Local>,
    ) -> Aggregator {
        let front_proxy = RwLock::new((0, front_proxy.map(Arc::new)));
        let (current, checked) = (RwLock::default(), tokio::sync::Notify::new());
        Aggregator { local, store, services, front_proxy, current, checked }
    }

    /// The certificate by which extension servers know this server.
    pub(crate) fn front_proxy(&self) -> Option<Arc<FrontProxy>> {
        self.numbered_front_proxy().1
    }

    fn numbered_front_proxy(&self) -> (u64, Option<Arc<FrontProxy>>) {
        self.front_proxy.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Another certificate, for connections made from now on.
    pub(crate) fn replace_front_proxy(&self, front_proxy: FrontProxy) {
        let mut current = self.front_proxy.write().unwrap_or_else(PoisonError::into_inner);
        *current = (current.0 + 1, Some(Arc::new(front_proxy)));
    }

    fn collection(&self) -> Option<Arc<Collection>> {
        self.store.collection("/registry/apiregistration.k8s.io/apiservices/")
    }

    /// The extension that serves a group's version.
    pub(crate) fn find(&self, group: &str, version: &str) -> Option<Present> {
        let current = self.current();
        let of = |p: &&Present| *p.extension.group == *group && *p.extension.version == *version;
        current.all.iter().find(of).cloned()
    }

    /// The documents that extensions publish for their versions, those of the highest priority first: each with the
    /// beginning of these paths. A document is kept while its extension is away.
    pub(crate) fn published(&self) -> Vec<(String, Arc<Published>)> {
        let current = self.current();
        let mut all: Vec<&Present> = current.all.iter().collect();
        let order = |present: &&Present| {
            let (group, version) = present.extension.priorities;
            (-group, -version, present.extension.name.clone())
        };
        all.sort_by_key(order);
        let of = |present: &Present| {
            let extension = &present.extension;
            Some((format!("{}/", extension.path()), extension.published()?))
        };
        all.into_iter().filter_map(of).collect()
    }

    /// The local API version, unless an APIService names a service for it.
    pub(crate) fn local(&self) -> Option<&Local> {
        self.local.as_ref().filter(|local| self.find(local.group, local.version).is_none())
    }

    /// Those of the objects that are stored now.
    fn current(&self) -> Arc<Extensions> {
        let Some(collection) = self.collection() else { return Arc::default() };
        let (exchanges, proxy) = self.numbered_front_proxy();
        let seen = Some((collection.last_change(), exchanges));
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner).clone();
        if current.seen == seen {
            return current;
        }
        let page = collection.list("", None, 0, usize::MAX, &|_| true);
        let objects = page.map(|page| page.objects).unwrap_or_default();
        // Connectors hold the certificate.
        let known = current.seen.filter(|(_, before)| *before == exchanges).map(|_| &*current);
        let read = |object: &Arc<Object>| read(object, known, proxy.as_deref());
        let all = objects.iter().filter_map(read).collect();
        let renewed = Arc::new(Extensions { seen, all });
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = renewed.clone();
        renewed
    }
}

/// An extension keeps its connections' setup and what is known of it while its spec stays the same.
fn read(
    object: &Object,
    former: Option<&Extensions>,
    front_proxy: Option<&FrontProxy>,
) -> Option<Present> {
    let tree = object.to_value();
    let spec = &tree["spec"];
    if !spec["service"].is_object() {
        return None;
    }
    let generation = spec_state(spec);
    let state = (object.meta().uid.clone(), generation);
    let is_available = validation::items(&tree["status"], "conditions")
        .any(|condition| condition["type"] == "Available" && condition["status"] == "True");
    let known = former.and_then(|all| all.all.iter().find(|known| known.extension.state == state));
    if let Some(known) = known {
        return Some(Present { extension: known.extension.clone(), is_available });
    }
    let text = |key: &str| spec[key].as_str().unwrap_or("").into();
    let number = |key: &str| spec[key].as_i64().unwrap_or(0);
    let extension = Extension {
        name: object.meta().name.clone(),
        group: text("group"),
        version: text("version"),
        state,
        priorities: (number("groupPriorityMinimum"), number("versionPriority")),
        connector: Connector::read(spec, front_proxy),
        served: RwLock::default(),
        published: RwLock::default(),
    };
    Some(Present { extension: Arc::new(extension), is_available })
}

/// A number that tells specs apart: APIServices have no generation.
fn spec_state(spec: &Value) -> i64 {
    let digest = pki::sha256(spec.to_string().as_bytes());
    i64::from_be_bytes(digest[..8].try_into().unwrap_or_default())
}
