//! Objects of one version as those of another: by their type alone, or by asking a webhook.
//!
//! As upstream's storage codec has it, a stored object gets the defaults of the version it is
//! stored in, is converted, and loses what the version it is converted to does not know.

use std::sync::Arc;

use api::{Draft, Object, Status};
use custom::{Compiled, ReviewVersion, accept};
use serde_json::Value;
use webhook::{Client, Endpoint, Services};

use super::{Depth, Served};

/// How a definition's objects get from one version to another.
#[derive(Debug, Clone)]
pub enum Conversion {
    /// Only `apiVersion` differs.
    None,
    Webhook(Arc<Webhook>),
    /// The webhook cannot be asked as it is configured.
    Broken,
}

/// A definition's conversion webhook.
#[derive(Debug)]
pub struct Webhook {
    /// `spec.conversion.webhook`; the client is used as long as it stays the same.
    config: Value,
    review: Option<ReviewVersion>,
    client: Client,
}

impl Conversion {
    /// Makes ready what `definition` says, going on with the client of `former` if it still can.
    pub fn of(
        definition: &custom::Definition,
        former: Option<&Conversion>,
        services: &Arc<dyn Services>,
    ) -> Conversion {
        let custom::Conversion::Webhook(config) = &definition.conversion else {
            return Conversion::None;
        };
        if let Some(Conversion::Webhook(known)) = former
            && known.config == *config
        {
            return Conversion::Webhook(known.clone());
        }
        let endpoint = Endpoint::of_client_config(&config["clientConfig"]);
        match endpoint.and_then(|endpoint| Client::new(endpoint, services.clone())) {
            Ok(client) => {
                let review = ReviewVersion::choose(&config["conversionReviewVersions"]);
                Conversion::Webhook(Arc::new(Webhook { config: config.clone(), review, client }))
            }
            Err(fault) => {
                let (plural, group) = (&definition.names.plural, &definition.group);
                tracing::error!("the conversion webhook of {plural}.{group} is unusable: {fault}");
                Conversion::Broken
            }
        }
    }
}

impl Webhook {
    /// `objects` as ones of version `wanted`, in their order, by one request. `list` is the kind of
    /// the list they are in. The error is upstream's.
    async fn convert(
        &self,
        mut objects: Vec<Value>,
        wanted: &str,
        list: Option<&str>,
    ) -> Result<Vec<Value>, String> {
        let sent: Vec<usize> =
            (0..objects.len()).filter(|at| objects[*at]["apiVersion"] != wanted).collect();
        let Some(first) = sent.first() else { return Ok(objects) };
        let (version, kind) = match list {
            Some(kind) => (wanted, kind),
            None => (text(&objects[*first]["apiVersion"]), text(&objects[*first]["kind"])),
        };
        let subject = format!("conversion webhook for {version}, Kind={kind}");
        let review = self.review.ok_or("no supported conversion review versions")?;
        let uid = uuid::Uuid::new_v4().to_string();
        let asked: Vec<&Value> = sent.iter().map(|at| &objects[*at]).collect();
        let answer =
            self.client.post(&review.request(&uid, wanted, &asked), webhook::TIMEOUT).await;
        let converted = answer
            .map_err(|failure| failure.to_string())
            .and_then(|answer| review.converted(&uid, answer));
        let converted = converted.map_err(|why| format!("{subject} failed: {why}"))?;
        if converted.len() != sent.len() {
            let (found, expected) = (converted.len(), sent.len());
            return Err(format!("{subject} returned {found} objects, expected {expected}"));
        }
        for (nth, (at, object)) in sent.into_iter().zip(converted).enumerate() {
            let taken = accept(&objects[at], object, wanted);
            let place = list.map(|_| nth);
            objects[at] =
                taken.map_err(|f| format!("{subject} returned invalid {}", f.told(place)))?;
        }
        Ok(objects)
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

/// A failed conversion as clients see it: an error of upstream's storage, without a reason.
pub(crate) fn failure(why: String) -> Status {
    Status::failure(500, "", why)
}

impl Served {
    /// The place of the version that an `apiVersion` of this definition names.
    pub(super) fn place_of(&self, api_version: &str) -> Option<usize> {
        let (group, name) = api_version.split_once('/')?;
        let mut versions = self.definition.versions.iter();
        versions.position(|v| *v.name == *name).filter(|_| group == &*self.definition.group)
    }

    /// The schema of a version, enough to prune and to default.
    fn structure(&self, at: usize) -> Arc<Compiled> {
        self.schemas.get(at, Depth::Structure)
    }

    /// Objects of any version of the definition as ones of another.
    pub async fn convert(
        &self,
        objects: Vec<Value>,
        wanted: &str,
        list: Option<&str>,
    ) -> Result<Vec<Value>, String> {
        let target = self.place_of(wanted).ok_or_else(|| {
            format!("request to convert CR to an invalid group/version: {wanted}")
        })?;
        for object in &objects {
            let from = text(&object["apiVersion"]);
            if self.place_of(from).is_none() {
                return Err(format!("request to convert CR from an invalid group/version: {from}"));
            }
        }
        let others: Vec<bool> = objects.iter().map(|o| o["apiVersion"] != wanted).collect();
        let mut objects = match &self.conversion {
            Conversion::Webhook(webhook) => webhook.convert(objects, wanted, list).await?,
            Conversion::None => objects,
            Conversion::Broken => return Err("error resolving resource".into()),
        };
        for (object, _) in objects.iter_mut().zip(others).filter(|(_, other)| *other) {
            object["apiVersion"] = wanted.into();
            coerce(&self.structure(target), object);
        }
        Ok(objects)
    }

    /// A stored object as it is read: with the defaults of the version it is stored in.
    fn read(&self, object: &Object) -> Value {
        let mut tree = object.to_value();
        if self.defaults
            && let Some(version) = self.place_of(text(&tree["apiVersion"]))
        {
            fill(&self.structure(version), &mut tree);
        }
        tree
    }

    /// A stored object as one of this version.
    pub async fn shown(&self, object: &Object) -> Result<Value, Status> {
        let wanted = self.row.api_version();
        let trees = self.convert(vec![self.read(object)], &wanted, None).await.map_err(failure)?;
        trees.into_iter().next().ok_or_else(|| failure("CR conversion failed".into()))
    }

    /// Stored objects as ones of this version: those that were not asked for before in one request.
    pub async fn objects(
        &self,
        stored: &[Arc<Object>],
        list: Option<&str>,
    ) -> Result<Vec<Arc<Object>>, String> {
        let mut shown: Vec<Option<Arc<Object>>> =
            stored.iter().map(|object| self.seen.get(object)).collect();
        let missing: Vec<usize> = (0..stored.len()).filter(|at| shown[*at].is_none()).collect();
        let trees = missing.iter().map(|at| self.read(&stored[*at])).collect();
        let trees = self.convert(trees, &self.row.api_version(), list).await?;
        for (at, tree) in missing.into_iter().zip(trees) {
            let object = Object::new(&tree, stored[at].revision(), self.row.selectable);
            shown[at] = Some(self.seen.put(&stored[at], Arc::new(object)));
        }
        Ok(shown.into_iter().flatten().collect())
    }

    /// An object of this version as it is stored.
    pub(super) async fn stored(&self, object: &Value) -> Result<Draft, Status> {
        let trees = self.convert(vec![object.clone()], &self.storage, None).await;
        let trees = trees.map_err(failure)?;
        let tree = trees.first().ok_or_else(|| failure("CR conversion failed".into()))?;
        Ok(Draft::new(tree, self.stored_fields))
    }

    /// Shows a stored object as one of this version where that needs no webhook.
    pub(super) fn retype(&self, object: &mut Value) {
        let wanted = self.row.api_version();
        let stored = text(&object["apiVersion"]).to_owned();
        if self.defaults
            && let Some(version) = self.place_of(&stored)
        {
            fill(&self.structure(version), object);
        }
        if stored != wanted {
            object["apiVersion"] = wanted.into();
            if !self.alike {
                coerce(&self.structure(self.at), object);
            }
        }
    }
}

/// Defaults of the version that a stored object was written in. An object to which they would add
/// more than a body may have is shown as far as they go.
fn fill(version: &Compiled, object: &mut Value) {
    if custom::default(&version.node, object).is_err() {
        let (kind, name) = (text(&object["kind"]), text(&object["metadata"]["name"]));
        tracing::warn!(kind, name, "a definition's defaults are too large for a stored object");
    }
}

/// Leaves of a converted object what its version knows.
fn coerce(version: &Compiled, object: &mut Value) {
    custom::prune(&version.node, object);
    custom::drop_nulls(&version.node, object);
}
