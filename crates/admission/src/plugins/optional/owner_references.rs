//! OwnerReferencesPermissionEnforcement: owners are changed by those who may delete the object, and an owner's
//! deletion is held up by those who may set its finalizers.
//!
//! Rule: `plugin/pkg/admission/gc`.

use auth::Inquiry;
use serde_json::Value;
use validation::items;

use crate::attributes::{Attributes, Operation};
use crate::plugin::{Decision, Plugin, Verdict};

pub(crate) struct OwnerReferencesPermissionEnforcement;

impl Plugin for OwnerReferencesPermissionEnforcement {
    fn name(&self) -> &'static str {
        "OwnerReferencesPermissionEnforcement"
    }

    fn handles(&self, request: &Attributes<'_>) -> bool {
        let writes = matches!(request.operation, Operation::Create | Operation::Update);
        writes && request.path() != ("", "pods", "status")
    }

    fn validate<'a>(&'a self, request: &'a Attributes<'a>, object: &'a Value) -> Decision<'a> {
        Decision::asking(request, move |asked| check(request, asked, object))
    }
}

fn owners(object: &Value) -> impl Iterator<Item = &Value> {
    items(&object["metadata"], "ownerReferences")
}

fn check(request: &Attributes<'_>, asked: &Inquiry<'_>, object: &Value) -> Verdict {
    let old = request.old.unwrap_or(&Value::Null);
    if owners(old).eq(owners(object)) {
        return Ok(());
    }
    if request.operation != Operation::Create {
        let delete = auth::Attributes {
            verb: "delete",
            name: request.name,
            ..auth::Attributes::of(request.info)
        };
        if let Err(why) = asked.check(request.user, &delete) {
            let why =
                format!("cannot set an ownerRef on a resource you can't delete: {why}, <nil>");
            return Err(request.forbid(object, &why));
        }
    }
    let blocks = |owner: &Value| owner["blockOwnerDeletion"] == true;
    let did_block = |owner: &Value| owners(old).any(|o| o["uid"] == owner["uid"] && blocks(o));
    let mut new = owners(object).filter(|owner| blocks(owner) && !did_block(owner)).peekable();
    let anything = auth::Attributes {
        verb: "update",
        group: "*",
        resource: "*",
        subresource: "finalizers",
        name: "*",
        ..auth::Attributes::default()
    };
    if new.peek().is_none() || asked.ask(request.user, &anything).is_allowed() {
        return Ok(());
    }
    new.try_for_each(|owner| may_block(request, asked, object, owner))
}

fn may_block(
    request: &Attributes<'_>,
    asked: &Inquiry<'_>,
    object: &Value,
    owner: &Value,
) -> Verdict {
    let text = |key: &str| owner[key].as_str().unwrap_or("");
    let (group, version) = text("apiVersion").split_once('/').unwrap_or(("", text("apiVersion")));
    let Some(row) = request.cluster.row_of_kind(group, version, text("kind")) else {
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        let why = format!(
            "cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion {api_version} Kind {kind}: no matches for kind {kind:?} in version {api_version:?}"
        );
        return Err(request.forbid(object, &why));
    };
    let finalize = auth::Attributes {
        verb: "update",
        group: row.group,
        resource: row.name,
        subresource: "finalizers",
        namespace: if row.namespaced { request.namespace() } else { "" },
        name: text("name"),
        ..auth::Attributes::default()
    };
    asked.check(request.user, &finalize).map_err(|why| {
        let why = format!(
            "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: {why}, <nil>"
        );
        request.forbid(object, &why)
    })
}
