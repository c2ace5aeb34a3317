//! The way of requests through the admission chain.

use std::borrow::Cow;

use ::admission::{Attributes, Operation, Reinvocation};
use api::Status;
use api::apply::{folded, unfolded};
use serde_json::{Map, Value, json};

use crate::call::Call;

/// An object on its way through the chain.
pub struct Admitted<'a> {
    operation: Operation,
    /// Empty when the server generates it.
    name: &'a str,
    old: Option<&'a Value>,
    /// The options of a deletion, as the client sent them.
    options: Option<&'a Value>,
    reinvocation: Reinvocation,
}

impl<'a> Admitted<'a> {
    fn new(operation: Operation, name: &'a str, old: Option<&'a Value>) -> Admitted<'a> {
        let reinvocation = Reinvocation::default();
        Admitted { operation, name, old, options: None, reinvocation }
    }

    pub fn created(name: &'a str) -> Admitted<'a> {
        Admitted::new(Operation::Create, name, None)
    }

    pub fn updated(name: &'a str, old: &'a Value) -> Admitted<'a> {
        Admitted::new(Operation::Update, name, Some(old))
    }

    pub fn deleted(name: &'a str, old: &'a Value, options: &'a Value) -> Admitted<'a> {
        let new = Admitted::new(Operation::Delete, name, Some(old));
        Admitted { options: Some(options), ..new }
    }

    pub fn connected(name: &'a str) -> Admitted<'a> {
        Admitted::new(Operation::Connect, name, None)
    }

    /// The phase in which plugins change the object.
    pub async fn mutate(&self, call: &Call<'_>, object: &mut Value) -> Result<(), Status> {
        if call.is_admitted {
            return Ok(());
        }
        let ((warn, annotate), options) = (notes(call), || self.options(call));
        let attributes = self.attributes(call, (&warn, &annotate, &options));
        let whole = self.unfolded_old(call, &attributes);
        let attributes = Attributes { old: whole.as_deref().or(self.old), ..attributes };
        call.resources.admission.chain.mutate(&attributes, object).await
    }

    /// The phase in which plugins refuse a complete and valid object.
    pub async fn validate(&self, call: &Call<'_>, object: &Value) -> Result<(), Status> {
        if call.is_admitted {
            return Ok(());
        }
        let ((warn, annotate), options) = (notes(call), || self.options(call));
        let attributes = self.attributes(call, (&warn, &annotate, &options));
        let whole = self.unfolded_old(call, &attributes);
        let attributes = Attributes { old: whole.as_deref().or(self.old), ..attributes };
        call.resources.admission.chain.validate(&attributes, object).await
    }

    /// The former object unfolded, if some plugin looks at its managers.
    fn unfolded_old(&self, call: &Call<'_>, request: &Attributes<'_>) -> Option<Cow<'a, Value>> {
        let old = self.old.filter(|old| folded(old).is_some())?;
        call.resources.admission.chain.reads_managers(request).then(|| unfolded(old))
    }

    /// Both phases, for what is answered rather than stored.
    pub async fn admit(&self, call: &Call<'_>, object: &mut Value) -> Result<(), Status> {
        self.mutate(call, object).await?;
        self.validate(call, object).await
    }

    fn dry_run(&self, call: &Call<'_>) -> bool {
        let asked = self.options.map(|options| &options["dryRun"]).and_then(Value::as_array);
        call.context.dry_run || asked.is_some_and(|list| !list.is_empty())
    }

    /// The options as upstream decodes them; a patch is shown as the creation or update that it becomes.
    fn options(&self, call: &Call<'_>) -> Value {
        let (kind, keys): (&str, &[&str]) = match self.operation {
            Operation::Create => ("CreateOptions", &["fieldManager", "fieldValidation"]),
            Operation::Update => ("UpdateOptions", &["fieldManager", "fieldValidation"]),
            Operation::Delete => ("DeleteOptions", &[]),
            Operation::Connect => return Value::Null,
        };
        let mut options = Map::new();
        options.insert("kind".into(), kind.into());
        options.insert("apiVersion".into(), "meta.k8s.io/v1".into());
        let query = call.context.query;
        for key in keys {
            if let Some(text) = query.get(key).filter(|text| !text.is_empty()) {
                options.insert((*key).into(), text.into());
            }
        }
        let sent = self.options.and_then(Value::as_object).into_iter().flatten();
        options.extend(sent.map(|(key, value)| (key.clone(), value.clone())));
        if call.context.dry_run {
            options.insert("dryRun".into(), json!(["All"]));
        }
        Value::Object(options)
    }

    fn attributes<'b>(
        &'b self,
        call: &'b Call<'_>,
        (warn, annotate, options): (&'b Warn<'b>, &'b Annotate<'b>, &'b Options<'b>),
    ) -> Attributes<'b> {
        let context = &call.context;
        Attributes {
            operation: self.operation,
            user: context.user,
            info: context.info,
            row: call.row,
            name: self.name,
            old: self.old,
            dry_run: self.dry_run(call),
            options,
            now: context.now,
            deadline: context.deadline,
            cluster: &call.resources.admission.cluster,
            versions: call,
            reinvocation: &self.reinvocation,
            warn,
            annotate,
        }
    }
}

type Options<'a> = dyn Fn() -> Value + Sync + 'a;
type Warn<'a> = dyn Fn(String) + Sync + 'a;
type Annotate<'a> = dyn Fn(&str, String) + Sync + 'a;

/// Where plugins leave what they tell the client and the audit.
fn notes<'a>(
    call: &'a Call<'_>,
) -> (impl Fn(String) + Sync + 'a, impl Fn(&str, String) + Sync + 'a) {
    let context = &call.context;
    (|text| context.warn(text), |key: &str, value| context.annotate(key, value))
}
