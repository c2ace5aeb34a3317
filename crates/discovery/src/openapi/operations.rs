//! What can be asked of each path, in OpenAPI v3's form (apiserver `endpoints/installer`, and for
//! custom resources apiextensions `openapi/builder`).

use api::registry::Resource;
use serde_json::{Map, Value, json};

use super::parameters::{self, DELETE, DELETE_COLLECTION, LIST, LOG, PATCH, WRITE};
use strategy::type_names::{camel, group_name, tag};

/// A resource or subresource with the names that documents use for it.
pub(super) struct Subject<'a> {
    pub(super) row: &'a Resource,
    /// Kind of the resource, also where the row is its subresource.
    pub(super) kind: &'a str,
    /// Schema of an object.
    pub(super) model: String,
    pub(super) custom: bool,
}

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";
const ALL: &str = "*/*";
const ENCODINGS: &[&str] =
    &["application/json", "application/vnd.kubernetes.protobuf", "application/yaml"];
const STREAMED: &[&str] = &[
    "application/json",
    "application/json;stream=watch",
    "application/vnd.kubernetes.protobuf",
    "application/vnd.kubernetes.protobuf;stream=watch",
    "application/yaml",
];
const TEXTS: &[&str] = &["application/json", "application/yaml"];
const PATCHES: &[&str] = &[
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];
const PATCHES_OF_CUSTOM: &[&str] = &[
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
];

/// One operation being described.
struct Operation {
    id: String,
    description: String,
    action: &'static str,
    query: Vec<&'static str>,
    body: Option<(&'static [&'static str], String)>,
    answers: Vec<(&'static str, &'static str)>,
    /// Schema of the answer; none is text.
    answer: Option<String>,
    forms: &'static [&'static str],
}

/// Adds everything that can be asked of a row.
pub(super) fn add(subject: &Subject<'_>, paths: &mut Map<String, Value>) {
    let row = subject.row;
    let root = match row.group {
        "" => format!("/api/{}", row.version),
        group => format!("/apis/{group}/{}", row.version),
    };
    let place = if row.namespaced { "/namespaces/{namespace}" } else { "" };
    let collection = format!("{place}/{}", row.name);
    let object = match row.subresource {
        "" => format!("{collection}/{{name}}"),
        sub => format!("{collection}/{{name}}/{sub}"),
    };
    if is_connection(row) {
        return connections(subject, &format!("{root}{object}"), paths);
    }
    let mut put = |path: String, method: &str, operation: Operation| {
        insert(paths, &path, method, operation.shown(subject, &path));
    };
    for verb in &row.verbs {
        let path = match *verb {
            "create" if !row.subresource.is_empty() => &object,
            "create" | "list" | "deletecollection" => &collection,
            _ => &object,
        };
        if let Some((method, operation)) = subject.operation(verb) {
            put(format!("{root}{path}"), method, operation);
        }
        if *verb == "list" && row.namespaced {
            put(format!("{root}/{}", row.name), "get", subject.list("ForAllNamespaces"));
        }
        if *verb == "watch" && !subject.custom {
            put(format!("{root}/watch{collection}"), "get", subject.watch_list(""));
            put(format!("{root}/watch{object}"), "get", subject.watch());
            if row.namespaced {
                let path = format!("{root}/watch/{}", row.name);
                put(path, "get", subject.watch_list("ForAllNamespaces"));
            }
        }
    }
}

fn insert(paths: &mut Map<String, Value>, path: &str, method: &str, operation: Value) {
    let item = paths.entry(path.to_owned()).or_insert_with(|| json!({}));
    item[method] = operation;
}

fn is_connection(row: &Resource) -> bool {
    matches!(row.subresource, "attach" | "exec" | "portforward" | "proxy")
}

fn connections(subject: &Subject<'_>, object: &str, paths: &mut Map<String, Value>) {
    let proxies = subject.row.subresource == "proxy";
    let methods: &[&str] = match proxies {
        true => &["delete", "get", "head", "options", "patch", "post", "put"],
        false => &["get", "post"],
    };
    let below = proxies.then(|| (format!("{object}/{{path}}"), "WithPath"));
    for (path, suffix) in [(object.to_owned(), "")].into_iter().chain(below) {
        for method in methods {
            let operation = subject.connection(method, suffix);
            insert(paths, &path, method, operation.shown(subject, &path));
        }
    }
}

impl Subject<'_> {
    fn list_model(&self) -> String {
        format!("{}List", self.model)
    }

    /// `listAppsV1NamespacedDeployment`, and so on.
    fn id(&self, verb: &str, suffix: &str) -> String {
        let row = self.row;
        let (group, version) = (camel(&group_name(row.group)), camel(row.version));
        let (verb, collection) = match verb {
            "deletecollection" => ("delete", "Collection"),
            verb => (verb, ""),
        };
        let everywhere = suffix == "ForAllNamespaces";
        let namespaced = if row.namespaced && !everywhere { "Namespaced" } else { "" };
        let list = if verb == "watchlist" { "List" } else { "" };
        let verb = verb.trim_end_matches("list");
        let verb = if verb.is_empty() { "list" } else { verb };
        let sub = camel(row.subresource);
        format!("{verb}{group}{version}{collection}{namespaced}{}{sub}{list}{suffix}", self.kind)
    }

    fn operation(&self, verb: &str) -> Option<(&'static str, Operation)> {
        Some(match verb {
            "get" => ("get", self.read()),
            "list" => ("get", self.list("")),
            "create" => ("post", self.create()),
            "update" => ("put", self.replace()),
            "patch" => ("patch", self.patch()),
            "delete" => ("delete", self.delete()),
            "deletecollection" => ("delete", self.delete_collection()),
            _ => return None,
        })
    }

    fn described(&self, action: &'static str, verb: &str, description: String) -> Operation {
        Operation {
            id: self.id(verb, ""),
            description,
            action,
            query: vec!["pretty"],
            body: None,
            answers: vec![("200", "OK")],
            answer: Some(self.model.clone()),
            forms: if self.custom { TEXTS } else { ENCODINGS },
        }
    }

    /// `status of the specified Pod`.
    fn subject(&self, article: &str) -> String {
        match self.row.subresource {
            "" => format!("{article}{}", self.kind),
            sub => format!("{sub} of {article}{}", self.kind),
        }
    }

    fn a_kind(&self) -> String {
        let vowel = self.kind.starts_with(['A', 'E', 'I', 'O', 'U']);
        let article = match self.kind.ends_with('s') && !self.kind.ends_with("Class") {
            true => "",
            false if vowel => "an ",
            false => "a ",
        };
        self.subject(article)
    }

    fn bodies(&self) -> &'static [&'static str] {
        if self.custom { TEXTS } else { &[ALL] }
    }

    fn read(&self) -> Operation {
        let mut read =
            self.described("get", "read", format!("read {}", self.subject("the specified ")));
        if self.row.subresource == "log" {
            read.query.extend(LOG);
            read.answer = None;
            read.forms = &[
                "application/json",
                "application/vnd.kubernetes.protobuf",
                "application/yaml",
                "text/plain",
            ];
        }
        read
    }

    fn list(&self, suffix: &str) -> Operation {
        let what = if self.row.allows("watch") { "list or watch" } else { "list" };
        let mut list =
            self.described("list", "list", format!("{what} objects of kind {}", self.kind));
        list.id = self.id("list", suffix);
        list.query.extend(LIST);
        list.answer = Some(self.list_model());
        list.forms = if self.custom { TEXTS } else { STREAMED };
        list
    }

    fn watch_list(&self, suffix: &str) -> Operation {
        let description =
            format!("watch a list of {}. deprecated: use 'watch' with a list", self.kind);
        let mut watch = self.list(suffix);
        watch.id = self.id("watchlist", suffix);
        watch.action = "watchlist";
        watch.description = description;
        watch.answer = Some(format!("{META}WatchEvent"));
        watch
    }

    fn watch(&self) -> Operation {
        let description = format!(
            "watch a {}. deprecated: use 'watch' with a list and a 'fieldSelector'",
            self.kind
        );
        let mut watch = self.watch_list("");
        watch.id = self.id("watch", "");
        watch.action = "watch";
        watch.description = description;
        watch
    }

    fn create(&self) -> Operation {
        let mut create = self.described("post", "create", format!("create {}", self.a_kind()));
        create.query.extend(WRITE);
        create.body = Some((self.bodies(), self.model.clone()));
        create.answers.extend([("201", "Created"), ("202", "Accepted")]);
        create
    }

    fn replace(&self) -> Operation {
        let description = format!("replace {}", self.subject("the specified "));
        let mut replace = self.described("put", "replace", description);
        replace.query.extend(WRITE);
        replace.body = Some((self.bodies(), self.model.clone()));
        replace.answers.push(("201", "Created"));
        replace
    }

    fn patch(&self) -> Operation {
        let description = format!("partially update {}", self.subject("the specified "));
        let mut patch = self.described("patch", "patch", description);
        patch.query.extend(PATCH);
        let forms = if self.custom { PATCHES_OF_CUSTOM } else { PATCHES };
        patch.body = Some((forms, format!("{META}Patch")));
        if !self.custom {
            patch.answers.push(("201", "Created"));
        }
        patch
    }

    fn delete(&self) -> Operation {
        let mut delete = self.described("delete", "delete", format!("delete {}", self.a_kind()));
        delete.query.extend(DELETE);
        delete.body = Some((self.bodies(), format!("{META}DeleteOptions")));
        delete.answers.push(("202", "Accepted"));
        if !answers_with_deleted(self.row) {
            delete.answer = Some(format!("{META}Status"));
        }
        delete
    }

    fn delete_collection(&self) -> Operation {
        let description = format!("delete collection of {}", self.kind);
        let mut delete = self.described("deletecollection", "deletecollection", description);
        delete.answer = Some(format!("{META}Status"));
        if self.custom {
            delete.query.extend(LIST);
        } else {
            delete.query.extend(DELETE.iter().chain(DELETE_COLLECTION));
            delete.body = Some((self.bodies(), format!("{META}DeleteOptions")));
        }
        delete
    }

    fn connection(&self, method: &str, suffix: &str) -> Operation {
        let sub = self.row.subresource;
        let upper = method.to_uppercase();
        let description = format!("connect {upper} requests to {sub} of {}", self.kind);
        let mut connect = self.described("connect", "connect", description);
        let namespaced = if self.row.namespaced { "Namespaced" } else { "" };
        let (group, version) = (camel(&group_name(self.row.group)), camel(self.row.version));
        let (method, end) = (camel(method), format!("{}{suffix}", camel(sub)));
        connect.id = format!("connect{group}{version}{method}{namespaced}{}{end}", self.kind);
        connect.query = parameters::of_connection(sub).to_vec();
        connect.answer = None;
        connect.forms = &[ALL];
        connect
    }
}

/// Kinds whose deletion is answered with the object as it was.
fn answers_with_deleted(row: &Resource) -> bool {
    match row.group {
        "" => matches!(
            row.name,
            "persistentvolumeclaims"
                | "persistentvolumes"
                | "pods"
                | "podtemplates"
                | "resourcequotas"
                | "serviceaccounts"
                | "services"
        ),
        "storage.k8s.io" => row.name != "csistoragecapacities",
        "resource.k8s.io" => true,
        _ => false,
    }
}

impl Operation {
    fn shown(self, subject: &Subject<'_>, path: &str) -> Value {
        let row = subject.row;
        let (kind, (group, version)) = match subject.custom {
            true => (subject.kind, (row.group, row.version)),
            false => (row.kind, row.kind_version.unwrap_or((row.group, row.version))),
        };
        let schema = |model: &str| json!({"$ref": format!("#/components/schemas/{model}")});
        let mut value = json!({
            "tags": [tag(row.group, row.version)],
            "description": self.description,
            "operationId": self.id,
            "parameters": parameters_of(&self.query, path, kind),
            "responses": {"401": {"description": "Unauthorized"}},
            "x-kubernetes-action": self.action,
            "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": kind},
        });
        let text = json!({"type": "string"});
        let answer = self.answer.as_deref().map_or(text, schema);
        for (code, words) in self.answers {
            let content = content(self.forms, &answer);
            value["responses"][code] = json!({"description": words, "content": content});
        }
        if let Some((forms, model)) = self.body {
            value["requestBody"] = json!({"content": content(forms, &schema(&model))});
            if !matches!(self.action, "delete" | "deletecollection") {
                value["requestBody"]["required"] = true.into();
            }
        }
        value
    }
}

pub(super) fn content(forms: &[&str], schema: &Value) -> Value {
    let of = |form: &&str| ((*form).to_owned(), json!({"schema": schema}));
    Value::Object(forms.iter().map(of).collect())
}

fn parameters_of(query: &[&str], path: &str, kind: &str) -> Vec<Value> {
    let mut all: Vec<Value> = query.iter().map(|name| parameters::query(name)).collect();
    let fixed = [
        ("name", format!("name of the {kind}")),
        ("namespace", "namespace of the object".to_owned()),
        ("path", "path at the other side".to_owned()),
    ];
    let named = fixed.iter().filter(|(name, _)| path.contains(&format!("{{{name}}}")));
    all.extend(named.map(|(name, meaning)| parameters::path(name, meaning)));
    let key = |p: &Value| (p["name"].to_string(), p["in"].to_string());
    all.sort_by_key(key);
    all
}

/// What all operations of a path share is said once, of the path.
pub(super) fn share_parameters(paths: &mut Map<String, Value>) {
    for item in paths.values_mut().filter_map(Value::as_object_mut) {
        let lists = || item.values().map(|op| op["parameters"].as_array());
        let Some(Some(first)) = lists().next() else { continue };
        let everywhere = |p: &&Value| lists().all(|list| list.is_some_and(|list| list.contains(p)));
        let shared: Vec<Value> = first.iter().filter(everywhere).cloned().collect();
        for operation in item.values_mut().filter_map(Value::as_object_mut) {
            if let Some(Value::Array(own)) = operation.get_mut("parameters") {
                own.retain(|p| !shared.contains(p));
                if own.is_empty() {
                    operation.remove("parameters");
                }
            }
        }
        if !shared.is_empty() {
            item.insert("parameters".into(), shared.into());
        }
    }
}
