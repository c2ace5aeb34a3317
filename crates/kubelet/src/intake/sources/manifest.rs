//! Manifests of static pods: read, defaulted, checked and made the node's own. Pure.

use std::path::PathBuf;

use api::registry::{Registry, Resource};
use api::schema::{Decoder, Schema, Shape};
use k8s_openapi::api::core::v1::{Pod, Toleration};
use serde_json::Value;

use super::{HASH, references};

/// Where a manifest was found.
#[derive(Debug, Clone)]
pub(crate) enum Origin {
    File(PathBuf),
    Url(String),
}

/// The node that runs what a manifest says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    pub(crate) node: &'a str,
    pub(crate) origin: &'a Origin,
}

impl Reader<'_> {
    /// The pod of a manifest.
    pub(crate) fn pod(&self, text: &[u8]) -> Result<Pod, String> {
        let tree = tree(text)?;
        match kind(&tree) {
            ("v1", "Pod") => self.one(tree),
            _ => Err(unknown(&tree)),
        }
    }

    /// The pods of a manifest that may be a list.
    pub(crate) fn pods(&self, text: &[u8]) -> Result<Vec<Pod>, String> {
        let mut tree = tree(text)?;
        match kind(&tree) {
            ("v1", "Pod") => Ok(vec![self.one(tree)?]),
            ("v1", "PodList") => {
                let Value::Array(items) = tree["items"].take() else { return Ok(Vec::new()) };
                items.into_iter().map(|item| self.one(item)).collect()
            }
            _ => Err(unknown(&tree)),
        }
    }

    fn one(&self, tree: Value) -> Result<Pod, String> {
        let row = row();
        let (schema, shape) = (Schema::built_in(), row.ty.map_or(Shape::Any, Shape::Struct));
        let decoded = Decoder { schema, shape: &shape }.decode_value(tree)?;
        let mut tree = decoded.value;
        schema.apply_defaults(&shape, &mut tree);
        (validation::of(row).default)(&mut tree);
        let meta = &tree["metadata"];
        if meta["name"].as_str().is_none_or(str::is_empty) {
            return Err("invalid pod: name is needed for the pod".to_owned());
        }
        let uid = match meta["uid"].as_str().filter(|uid| !uid.is_empty()) {
            Some(uid) => uid.to_owned(),
            None => self.uid(&tree),
        };
        self.own(&mut tree, &uid)?;
        let faults = validation::validate_create(row, &tree);
        if !faults.is_empty() {
            let faults: Vec<String> =
                faults.iter().map(|f| format!("{}: {}", f.field, f.message)).collect();
            return Err(format!("invalid pod: {}", faults.join(", ")));
        }
        if let Some(what) = references::find(&tree["spec"])? {
            return Err(format!("static pods may not reference {what}"));
        }
        serde_json::from_value(tree).map_err(|e| format!("invalid pod: {e}"))
    }

    /// From what the manifest says and where it was found: another manifest is another pod.
    fn uid(&self, tree: &Value) -> String {
        let origin = match self.origin {
            Origin::File(path) => format!("host:{}file:{}", self.node, path.display()),
            Origin::Url(url) => format!("url:{url}"),
        };
        let text = format!("{tree}{origin}");
        let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
        digest.as_ref()[..16].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Binds the pod to this node.
    fn own(&self, tree: &mut Value, uid: &str) -> Result<(), String> {
        let mut pod: Pod =
            serde_json::from_value(tree.take()).map_err(|e| format!("invalid pod: {e}"))?;
        let meta = &mut pod.metadata;
        let name = meta.name.take().unwrap_or_default();
        meta.name = Some(format!("{name}-{}", self.node.to_lowercase()));
        meta.uid = Some(uid.to_owned());
        let namespace = meta.namespace.take().filter(|namespace| !namespace.is_empty());
        meta.namespace = Some(namespace.unwrap_or_else(|| "default".to_owned()));
        meta.annotations.get_or_insert_default().insert(HASH.to_owned(), uid.to_owned());
        let spec = pod.spec.get_or_insert_default();
        spec.node_name = Some(self.node.to_owned());
        if matches!(self.origin, Origin::File(_)) {
            tolerate_no_execute(spec.tolerations.get_or_insert_default());
        }
        pod.status = None;
        *tree = serde_json::to_value(pod).map_err(|e| e.to_string())?;
        Ok(())
    }
}

/// Troubles of the node do not end its own pods.
fn tolerate_no_execute(list: &mut Vec<Toleration>) {
    let own = Toleration {
        operator: Some("Exists".to_owned()),
        effect: Some("NoExecute".to_owned()),
        ..Toleration::default()
    };
    let same = |t: &&mut Toleration| {
        let key = t.key.as_deref().unwrap_or("");
        let value = t.value.as_deref().unwrap_or("");
        (key, value) == ("", "") && t.operator == own.operator && t.effect == own.effect
    };
    match list.iter_mut().find(same) {
        Some(found) => *found = own,
        None => list.push(own),
    }
}

fn row() -> &'static Resource {
    let found = Registry::built_in().find("", "v1", "pods", "");
    found.expect("pods are a built-in resource")
}

/// JSON is YAML, but for what only YAML's reader minds.
fn tree(text: &[u8]) -> Result<Value, String> {
    match text.trim_ascii_start().first() {
        Some(b'{') => api::schema::read_json(text),
        _ => api::yaml::read(text).map(|document| document.value),
    }
}

fn kind(tree: &Value) -> (&str, &str) {
    let of = |key: &str| tree[key].as_str().unwrap_or("");
    (of("apiVersion"), of("kind"))
}

fn unknown(tree: &Value) -> String {
    let (version, kind) = kind(tree);
    match (version, kind) {
        (_, "") => "Object 'Kind' is missing".to_owned(),
        ("", _) => "Object 'apiVersion' is missing".to_owned(),
        _ => format!("invalid pod: {version}, Kind={kind}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n  containers: [{name: c, image: i}]\n";

    fn origin() -> Origin {
        Origin::File("/etc/kubernetes/manifests/web.yaml".into())
    }

    fn read(text: &str) -> Result<Pod, String> {
        Reader { node: "n1", origin: &origin() }.pod(text.as_bytes())
    }

    #[test]
    fn a_manifest_becomes_a_pod_of_the_node() {
        let pod = read(WEB).unwrap();
        let (meta, spec) = (&pod.metadata, pod.spec.clone().unwrap());
        assert_eq!(meta.name.as_deref(), Some("web-n1"));
        assert_eq!(meta.namespace.as_deref(), Some("default"));
        let uid = meta.uid.clone().unwrap();
        assert_eq!(uid.len(), 32);
        assert_eq!(meta.annotations.as_ref().unwrap()[HASH], uid);
        assert_eq!(spec.node_name.as_deref(), Some("n1"));
        assert_eq!(spec.restart_policy.as_deref(), Some("Always"), "defaults are applied");
        assert_eq!(spec.containers[0].image_pull_policy.as_deref(), Some("Always"));
        let tolerations = spec.tolerations.unwrap();
        assert_eq!(tolerations.len(), 1);
        assert_eq!(tolerations[0].effect.as_deref(), Some("NoExecute"));
        assert_eq!(
            read(WEB).unwrap().metadata.uid.unwrap(),
            uid,
            "the same manifest, the same pod"
        );
        let other = read(&WEB.replace("image: i", "image: j")).unwrap();
        assert_ne!(other.metadata.uid.unwrap(), uid);
        let elsewhere = Origin::Url("http://x/web".into());
        let other = Reader { node: "n1", origin: &elsewhere }.pod(WEB.as_bytes()).unwrap();
        assert_ne!(other.metadata.uid.unwrap(), uid);
        assert!(other.spec.unwrap().tolerations.is_none(), "only files' pods tolerate");
    }

    #[test]
    fn a_uid_in_the_manifest_is_kept_and_json_is_read_too() {
        let text = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","uid":"u","namespace":"kube-system"},"spec":{"containers":[{"name":"c","image":"i"}]}}"#;
        let pod = read(text).unwrap();
        assert_eq!(pod.metadata.uid.as_deref(), Some("u"));
        assert_eq!(pod.metadata.namespace.as_deref(), Some("kube-system"));
    }

    #[test]
    fn lists_are_for_urls() {
        let items = WEB.replace("apiVersion: v1\nkind: Pod\n", "").replace('\n', "\n    ");
        let list = format!(
            "apiVersion: v1\nkind: PodList\nitems:\n  - apiVersion: v1\n    kind: Pod\n    {items}"
        );
        let reader = Reader { node: "n", origin: &Origin::Url("u".into()) };
        assert_eq!(reader.pods(list.as_bytes()).unwrap().len(), 1);
        assert_eq!(read(&list).unwrap_err(), "invalid pod: v1, Kind=PodList");
    }

    #[test]
    fn what_is_no_pod_is_refused() {
        for (text, why) in [
            ("a: [", ""),
            ("metadata: {name: x}", "Object 'Kind' is missing"),
            ("apiVersion: v1\nkind: Service", "invalid pod: v1, Kind=Service"),
            (
                "apiVersion: v1\nkind: Pod\nspec: {containers: [{name: c, image: i}]}",
                "invalid pod: name is needed for the pod",
            ),
            (
                "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: []}",
                "invalid pod: spec.containers: Required value",
            ),
            ("apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: 7}", ""),
            (
                "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {serviceAccountName: x, containers: [{name: c, image: i}]}",
                "static pods may not reference serviceaccounts",
            ),
        ] {
            let said = read(text).unwrap_err();
            assert!(said.starts_with(why), "{text}: {said}");
        }
    }
}
