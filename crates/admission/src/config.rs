//! `--admission-control-config-file`: the configurations of plugins (`AdmissionConfiguration`).

use std::collections::BTreeMap;

use serde_json::Value;

const VERSIONS: [&str; 2] = ["apiserver.config.k8s.io/v1", "apiserver.k8s.io/v1alpha1"];

/// Plugins whose configuration may be the whole file, as it was before AdmissionConfiguration, and the key by
/// which it is recognised.
const LEGACY: [(&str, &str); 2] =
    [("ImagePolicyWebhook", "imagePolicy"), ("PodNodeSelector", "podNodeSelectorPluginConfig")];

/// The configuration of plugins.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Configuration {
    plugins: BTreeMap<String, Value>,
}

impl Configuration {
    pub const NONE: Configuration = Configuration { plugins: BTreeMap::new() };

    /// Reads the text of the file. `file` reads another one, that a plugin's `path` names.
    pub fn read(
        text: &[u8],
        file: &dyn Fn(&str) -> Result<Vec<u8>, String>,
    ) -> Result<Configuration, String> {
        let tree = yaml(text)?;
        let (api_version, kind) = (text_of(&tree, "apiVersion"), text_of(&tree, "kind"));
        if kind != "AdmissionConfiguration" || !VERSIONS.contains(&api_version) {
            return legacy(&tree).ok_or_else(|| unknown(api_version, kind));
        }
        check_fields(&tree, &["apiVersion", "kind", "plugins"], "")?;
        let mut plugins = BTreeMap::new();
        for (at, plugin) in validation::items(&tree, "plugins").enumerate() {
            let place = format!("plugins[{at}].");
            check_fields(plugin, &["name", "path", "configuration"], &place)?;
            let configuration = match (&plugin["configuration"], text_of(plugin, "path")) {
                (Value::Null, "") => Value::Null,
                (Value::Null, path) => {
                    yaml(&file(path)?).map_err(|why| format!("{path}: {why}"))?
                }
                (inline, _) => inline.clone(),
            };
            plugins.entry(text_of(plugin, "name").to_owned()).or_insert(configuration);
        }
        Ok(Configuration { plugins })
    }

    /// The configuration of a plugin; null where there is none.
    pub fn of(&self, plugin: &str) -> &Value {
        self.plugins.get(plugin).unwrap_or(&Value::Null)
    }

    /// The same, if it has one, and it is of this kind in one of these versions.
    pub(crate) fn typed(&self, plugin: &str, kind: &str, group: &str) -> Result<&Value, String> {
        let own = self.of(plugin);
        let of_group = text_of(own, "apiVersion").split_once('/').map(|(group, _)| group);
        match own.is_null() || (text_of(own, "kind") == kind && of_group == Some(group)) {
            true => Ok(own),
            false => Err(unknown(text_of(own, "apiVersion"), text_of(own, "kind"))),
        }
    }
}

fn text_of<'a>(tree: &'a Value, key: &str) -> &'a str {
    tree[key].as_str().unwrap_or("")
}

fn yaml(text: &[u8]) -> Result<Value, String> {
    let document = api::yaml::read(text)?;
    match document.duplicates.first() {
        Some(duplicate) => Err(format!("error converting YAML to JSON: {duplicate}")),
        None => Ok(document.value),
    }
}

fn check_fields(tree: &Value, known: &[&str], place: &str) -> Result<(), String> {
    let mut fields = tree.as_object().into_iter().flatten();
    match fields.find(|(key, _)| !known.contains(&key.as_str())) {
        Some((key, _)) => Err(format!("strict decoding error: unknown field \"{place}{key}\"")),
        None => Ok(()),
    }
}

fn unknown(api_version: &str, kind: &str) -> String {
    match (api_version, kind) {
        (_, "") => "Object 'Kind' is missing".into(),
        ("", _) => "Object 'apiVersion' is missing".into(),
        _ => format!("no kind {kind:?} is registered for version {api_version:?}"),
    }
}

fn legacy(tree: &Value) -> Option<Configuration> {
    LEGACY.iter().find(|(_, key)| tree.get(key).is_some())?;
    let plugins = LEGACY.iter().map(|(plugin, _)| ((*plugin).to_owned(), tree.clone()));
    Some(Configuration { plugins: plugins.collect() })
}

/// Which plugins are on: `--enable-admission-plugins` and `--disable-admission-plugins`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    pub enabled: Vec<String>,
    pub disabled: Vec<String>,
}

impl Selection {
    /// No plugin is named.
    pub const NONE: Selection = Selection { enabled: Vec::new(), disabled: Vec::new() };

    pub(crate) fn has(&self, plugin: &str, by_default: bool) -> bool {
        let named = |list: &[String]| list.iter().any(|name| name == plugin);
        named(&self.enabled) || (by_default && !named(&self.disabled))
    }

    /// Refuses names that are not those of plugins, and names in both lists.
    pub(crate) fn check(&self, known: &[&str]) -> Result<(), String> {
        for (flag, list) in [("enable", &self.enabled), ("disable", &self.disabled)] {
            if let Some(name) = list.iter().find(|name| !known.contains(&name.as_str())) {
                return Err(format!("{flag}-admission-plugins plugin {name:?} is unknown"));
            }
        }
        let mut both: Vec<&str> =
            self.enabled.iter().filter(|n| self.disabled.contains(n)).map(String::as_str).collect();
        both.sort_unstable();
        match both.is_empty() {
            true => Ok(()),
            false => Err(format!(
                "[{}] in enable-admission-plugins and disable-admission-plugins overlapped",
                both.join(" ")
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Result<Configuration, String> {
        Configuration::read(text.as_bytes(), &|path| match path {
            "there.yaml" => Ok(b"a: 1".to_vec()),
            other => Err(format!("open {other}: no such file or directory")),
        })
    }

    const HEAD: &str = "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\n";

    #[test]
    fn plugins_are_configured_inline_or_by_path() {
        let text = format!(
            "{HEAD}plugins:\n- name: A\n  configuration: {{b: 2}}\n- name: B\n  path: there.yaml\n- name: C\n"
        );
        let all = read(&text).expect("a configuration");
        assert_eq!((all.of("A"), all.of("B")), (&json!({"b": 2}), &json!({"a": 1})));
        assert_eq!((all.of("C"), all.of("D")), (&Value::Null, &Value::Null));
        assert!(all.typed("A", "Configuration", "x").is_err());
        assert!(all.typed("D", "Configuration", "x").is_ok());
    }

    #[test]
    fn faults_of_the_file_are_told() {
        let missing = format!("{HEAD}plugins: [{{name: A, path: gone.yaml}}]");
        let field = format!("{HEAD}plugins: [{{name: A, pth: x}}]");
        for (text, why) in [
            (missing.as_str(), "open gone.yaml: no such file or directory"),
            (field.as_str(), "strict decoding error: unknown field \"plugins[0].pth\""),
            ("a: 1", "Object 'Kind' is missing"),
            ("kind: X", "Object 'apiVersion' is missing"),
            ("kind: Pod\napiVersion: v1", "no kind \"Pod\" is registered for version \"v1\""),
        ] {
            assert_eq!(read(text).expect_err("refused"), why);
        }
        assert!(read("a: [").is_err() && read("a: 1\na: 2").is_err());
    }

    #[test]
    fn the_old_form_of_two_plugins_is_read() {
        let all = read("podNodeSelectorPluginConfig: {a: b}").expect("a configuration");
        assert_eq!(all.of("PodNodeSelector")["podNodeSelectorPluginConfig"]["a"], "b");
    }

    #[test]
    fn plugins_are_selected_by_known_names() {
        let of = |enabled: &[&str], disabled: &[&str]| {
            let all = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect();
            Selection { enabled: all(enabled), disabled: all(disabled) }
        };
        let known = ["A", "B"];
        assert_eq!(of(&["A"], &["B"]).check(&known), Ok(()));
        for (selection, why) in [
            (of(&["X"], &[]), "enable-admission-plugins plugin \"X\" is unknown"),
            (of(&[], &["X"]), "disable-admission-plugins plugin \"X\" is unknown"),
            (
                of(&["B", "A"], &["A", "B"]),
                "[A B] in enable-admission-plugins and disable-admission-plugins overlapped",
            ),
        ] {
            assert_eq!(selection.check(&known), Err(why.into()));
        }
        let selection = of(&["A"], &["B"]);
        assert!(selection.has("A", false) && !selection.has("B", true));
        assert!(selection.has("C", true) && !selection.has("C", false));
    }
}
