//! The way of requests through the admission chain.

use ::admission::{Attributes, Operation};
use api::Status;
use serde_json::Value;

use crate::call::Call;

/// An object on its way through the chain.
pub(crate) struct Admitted<'a> {
    operation: Operation,
    /// Empty when the server generates it.
    name: &'a str,
    old: Option<&'a Value>,
}

impl<'a> Admitted<'a> {
    pub(crate) fn created(name: &'a str) -> Admitted<'a> {
        Admitted { operation: Operation::Create, name, old: None }
    }

    pub(crate) fn updated(name: &'a str, old: &'a Value) -> Admitted<'a> {
        Admitted { operation: Operation::Update, name, old: Some(old) }
    }

    pub(crate) fn deleted(name: &'a str, old: &'a Value) -> Admitted<'a> {
        Admitted { operation: Operation::Delete, name, old: Some(old) }
    }

    pub(crate) fn connected(name: &'a str) -> Admitted<'a> {
        Admitted { operation: Operation::Connect, name, old: None }
    }

    /// The phase in which plugins change the object.
    pub(crate) async fn mutate(&self, call: &Call<'_>, object: &mut Value) -> Result<(), Status> {
        if call.is_admitted {
            return Ok(());
        }
        let (warn, annotate) = notes(call);
        let attributes = self.attributes(call, (&warn, &annotate));
        call.resources.admission.chain.mutate(&attributes, object).await
    }

    /// The phase in which plugins refuse a complete and valid object.
    pub(crate) async fn validate(&self, call: &Call<'_>, object: &Value) -> Result<(), Status> {
        if call.is_admitted {
            return Ok(());
        }
        let (warn, annotate) = notes(call);
        let attributes = self.attributes(call, (&warn, &annotate));
        call.resources.admission.chain.validate(&attributes, object).await
    }

    /// Both phases, for what is answered rather than stored.
    pub(crate) async fn admit(&self, call: &Call<'_>, object: &mut Value) -> Result<(), Status> {
        self.mutate(call, object).await?;
        self.validate(call, object).await
    }

    fn attributes<'b>(
        &'b self,
        call: &'b Call<'_>,
        (warn, annotate): (&'b Warn<'b>, &'b Annotate<'b>),
    ) -> Attributes<'b> {
        let context = &call.context;
        Attributes {
            operation: self.operation,
            user: context.user,
            info: context.info,
            row: call.row,
            name: self.name,
            old: self.old,
            dry_run: context.dry_run,
            now: context.now,
            cluster: &call.resources.admission.cluster,
            versions: call,
            warn,
            annotate,
        }
    }
}

type Warn<'a> = dyn Fn(String) + Sync + 'a;
type Annotate<'a> = dyn Fn(&str, String) + Sync + 'a;

/// Where plugins leave what they tell the client and the audit.
fn notes<'a>(
    call: &'a Call<'_>,
) -> (impl Fn(String) + Sync + 'a, impl Fn(&str, String) + Sync + 'a) {
    let context = &call.context;
    (|text| context.warn(text), |key: &str, value| context.annotate(key, value))
}
