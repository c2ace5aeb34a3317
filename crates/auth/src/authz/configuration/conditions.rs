//! Conditions that a question meets before a webhook is asked (apiserver `pkg/authorization/cel`).

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use cel::{
    Decl, Env, Field, ListKind, Objects, PER_CALL_LIMIT, Program, Scalar, Type, Value as Cel,
};
use serde_json::{Value, json};

/// Compiled conditions.
#[derive(Debug, Default)]
pub(in crate::authz) struct Conditions(Vec<(String, Program)>);

const MANY: u64 = cel::REQUEST_MAX;

struct Subject {
    env: Env,
    decl: Decl,
}

static SUBJECT: LazyLock<Subject> = LazyLock::new(|| {
    let decl = spec();
    let env = Env::new(Arc::new(Objects::of(&decl))).with("request", decl.ty.clone());
    Subject { env, decl }
});

fn object<const N: usize>(name: &str, fields: [(&str, Decl); N]) -> Decl {
    let fields =
        fields.map(|(name, decl)| (name.into(), Field { name: name.into(), decl: Arc::new(decl) }));
    Decl::object(name, BTreeMap::from(fields), 2)
}

fn text() -> Decl {
    Decl::scalar(Scalar::String, MANY, 2)
}

fn texts() -> Decl {
    Decl::list(text(), ListKind::Atomic, MANY)
}

fn selector(name: &str) -> Decl {
    let requirement = object(
        "kubernetes.SelectorRequirement",
        [("key", text()), ("operator", text()), ("values", texts())],
    );
    let requirements = Decl::list(requirement, ListKind::Atomic, MANY);
    object(name, [("rawSelector", text()), ("requirements", requirements)])
}

fn spec() -> Decl {
    let resource = object(
        "kubernetes.ResourceAttributes",
        [
            ("namespace", text()),
            ("verb", text()),
            ("group", text()),
            ("version", text()),
            ("resource", text()),
            ("subresource", text()),
            ("name", text()),
            ("fieldSelector", selector("kubernetes.FieldSelectorAttributes")),
            ("labelSelector", selector("kubernetes.LabelSelectorAttributes")),
        ],
    );
    let path = object("kubernetes.NonResourceAttributes", [("path", text()), ("verb", text())]);
    object(
        "kubernetes.SubjectAccessReviewSpec",
        [
            ("resourceAttributes", resource),
            ("nonResourceAttributes", path),
            ("user", text()),
            ("groups", texts()),
            ("extra", Decl::map(texts(), MANY)),
            ("uid", text()),
        ],
    )
}

/// Compiles a condition; the error is upstream's detail of the field.
fn compile(text: &str) -> Result<Program, String> {
    let compiled = SUBJECT.env.compile(text).map_err(|e| format!("compilation failed: {e}"))?;
    if *compiled.output() != Type::Bool {
        return Err(format!("must evaluate to bool but got {}", compiled.output()));
    }
    compiled.program().map_err(|e| format!("program instantiation failed: {e}"))
}

impl Conditions {
    /// Adds a condition.
    pub(super) fn add(&mut self, text: &str) -> Result<(), String> {
        self.0.push((text.to_owned(), compile(text)?));
        Ok(())
    }

    /// Whether all hold. One that does not hold outweighs those that cannot be told.
    pub(in crate::authz) fn hold(&self, spec: &Value) -> Result<bool, String> {
        if self.0.is_empty() {
            return Ok(true);
        }
        let about = whole(spec);
        let mut faults = Vec::new();
        for (text, program) in &self.0 {
            let bound = Cel::of_json(&about, &SUBJECT.decl);
            match program.run(vec![Some(bound)], PER_CALL_LIMIT).value {
                Ok(Cel::Bool(true)) => {}
                Ok(_) => return Ok(false),
                Err(e) => faults.push(format!(
                    "cel evaluation error: expression '{text}' resulted in error: {e}"
                )),
            }
        }
        match crate::authz::escalation::aggregate(&faults) {
            None => Ok(true),
            Some(told) => Err(told),
        }
    }
}

/// The spec with the texts that are empty, which expressions may read.
fn whole(spec: &Value) -> Value {
    let mut all = json!({"user": "", "groups": [], "uid": "", "extra": {}});
    fill(&mut all, spec);
    if all["resourceAttributes"].is_object() {
        let mut about = json!({"namespace": "", "verb": "", "group": "", "version": "",
            "resource": "", "subresource": "", "name": ""});
        fill(&mut about, &spec["resourceAttributes"]);
        all["resourceAttributes"] = about;
    }
    all
}

fn fill(all: &mut Value, from: &Value) {
    for (key, value) in from.as_object().into_iter().flatten() {
        all[key.as_str()] = value.clone();
    }
}
