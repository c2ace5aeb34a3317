//! What the configuration files of `apiserver.config.k8s.io` have in common: their head, and how their faults are told.

use serde::de::DeserializeOwned;

/// The versions in which these files are written; they are alike.
const VERSIONS: [&str; 3] = [
    "apiserver.config.k8s.io/v1",
    "apiserver.config.k8s.io/v1beta1",
    "apiserver.config.k8s.io/v1alpha1",
];

/// A file that says what it is.
pub(crate) trait ConfigFile: DeserializeOwned {
    const KIND: &'static str;
    /// `apiVersion` and `kind`.
    fn head(&self) -> (&str, &str);

    /// Reads YAML or JSON; unknown fields and other kinds are refused.
    fn read(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Err("empty config data".into());
        }
        let file: Self =
            serde_yaml_ng::from_str(text).map_err(|e| format!("strict decoding error: {e}"))?;
        let (version, kind) = file.head();
        if kind != Self::KIND || !VERSIONS.contains(&version) {
            return Err(format!("no kind {kind:?} is registered for version {version:?}"));
        }
        Ok(file)
    }
}

/// Collects faults, each with its field.
pub(crate) struct Faults<'a>(pub(crate) &'a mut Vec<String>);

impl Faults<'_> {
    pub(crate) fn invalid(&mut self, at: &str, value: &str, why: &str) {
        self.0.push(format!("{at}: Invalid value: {value:?}: {why}"));
    }

    pub(crate) fn required(&mut self, at: &str, why: &str) {
        let why = if why.is_empty() { String::new() } else { format!(": {why}") };
        self.0.push(format!("{at}: Required value{why}"));
    }

    pub(crate) fn duplicate(&mut self, at: &str, value: &str) {
        self.0.push(format!("{at}: Duplicate value: {value:?}"));
    }

    pub(crate) fn unsupported(&mut self, at: &str, value: &str, known: &str) {
        self.0.push(format!("{at}: Unsupported value: {value:?}: supported values: {known}"));
    }
}

/// Several faults as one text, as upstream joins them.
pub(crate) fn told(faults: &[String]) -> Option<String> {
    match faults {
        [] => None,
        [one] => Some(one.clone()),
        many => Some(format!("[{}]", many.join(", "))),
    }
}
