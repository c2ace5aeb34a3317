//! The Node authoriser: a kubelet reads what its own pods refer to, and writes what is its own.
//!
//! Rule: `plugin/pkg/auth/authorizer/node`, with the gates that are on in v1.36. Writes that are
//! allowed here are narrowed by NodeRestriction (`admission/node`), which sees the objects.

use super::Attributes;
use super::relations::{Object, Relations};
use crate::objects::Objects;
use crate::user::User;

const LEASES: &str = "kube-node-lease";

/// `Err` carries the reason; blank when there is nothing to say.
pub(super) fn check(
    objects: &dyn Objects,
    user: &User,
    node: &str,
    a: &Attributes<'_>,
) -> Result<(), String> {
    if node.is_empty() {
        return Err(format!("unknown node for user {:?}", user.name));
    }
    let asked = Asked { relations: Relations { objects, node }, node, a };
    if a.path.is_some() {
        return asked.by_role();
    }
    match (a.group, a.resource) {
        ("", "secrets") => asked.read(Object::Secret),
        ("", "configmaps") => asked.read(Object::ConfigMap),
        ("", "persistentvolumeclaims") if a.subresource == "status" => asked.claim_status(),
        ("", "persistentvolumeclaims") => asked.get(Object::Claim),
        ("", "persistentvolumes") => asked.get(Object::Volume),
        ("resource.k8s.io", "resourceclaims") => asked.get(Object::ResourceClaim),
        ("storage.k8s.io", "volumeattachments") => asked.get(Object::Attachment),
        ("", "serviceaccounts") => asked.account(),
        ("coordination.k8s.io", "leases") => asked.lease(),
        ("storage.k8s.io", "csinodes") => asked.csi_node(),
        ("resource.k8s.io", "resourceslices") => asked.slice(),
        ("", "nodes") => asked.node(),
        ("", "pods") => asked.pod(),
        // The gate PodCertificateRequest is off.
        ("certificates.k8s.io", "podcertificaterequests") => Err(String::new()),
        _ => asked.by_role(),
    }
}

/// One question of one node.
struct Asked<'a> {
    relations: Relations<'a>,
    node: &'a str,
    a: &'a Attributes<'a>,
}

type Verdict = Result<(), String>;

fn refuse(why: &str) -> Verdict {
    Err(why.to_owned())
}

impl Asked<'_> {
    fn verb(&self, verbs: &[&str]) -> bool {
        verbs.contains(&self.a.verb)
    }

    fn is_read(&self) -> bool {
        self.verb(&["get", "list", "watch"])
    }

    /// The object that is named must be related to the node.
    fn related(&self, object: Object) -> Verdict {
        if self.a.name.is_empty() {
            return refuse("No Object name found");
        }
        match self.relations.reach(object, (self.a.namespace, self.a.name)) {
            true => Ok(()),
            false => {
                Err(format!("no relationship found between node '{}' and this object", self.node))
            }
        }
    }

    fn get(&self, object: Object) -> Verdict {
        match (self.a.verb, self.a.subresource) {
            ("get", "") => self.related(object),
            ("get", _) => refuse("cannot get subresource"),
            _ => refuse("can only get individual resources of this type"),
        }
    }

    fn read(&self, object: Object) -> Verdict {
        if !self.is_read() {
            return refuse("can only read resources of this type");
        }
        if !self.a.subresource.is_empty() {
            return refuse("cannot read subresource");
        }
        if self.a.namespace.is_empty() {
            return refuse("can only read namespaced object of this type");
        }
        self.related(object)
    }

    fn claim_status(&self) -> Verdict {
        match self.verb(&["update", "patch"]) {
            true => self.related(Object::Claim),
            false => refuse("can only get/update/patch this type"),
        }
    }

    fn account(&self) -> Verdict {
        match (self.a.verb, self.a.subresource) {
            ("get", "") => self.read(Object::Account),
            ("create", "token") if !self.a.name.is_empty() => self.related(Object::Account),
            ("create", "") if !self.a.name.is_empty() => {
                refuse("can only create token subresource of serviceaccount")
            }
            _ => refuse("can only create tokens for individual service accounts"),
        }
    }

    fn lease(&self) -> Verdict {
        if !self.verb(&["get", "create", "update", "patch", "delete"]) {
            return refuse("can only get, create, update, patch, or delete a node lease");
        }
        if self.a.namespace != LEASES {
            return Err(format!("can only access leases in the {LEASES:?} system namespace"));
        }
        if self.a.verb != "create" && self.a.name != self.node {
            return refuse("can only access node lease with the same name as the requesting node");
        }
        Ok(())
    }

    fn csi_node(&self) -> Verdict {
        if !self.verb(&["get", "create", "update", "patch", "delete"]) {
            return refuse("can only get, create, update, patch, or delete a CSINode");
        }
        if !self.a.subresource.is_empty() {
            return refuse("cannot authorize CSINode subresources");
        }
        if self.a.verb != "create" && self.a.name != self.node {
            return refuse("can only access CSINode with the same name as the requesting node");
        }
        Ok(())
    }

    fn slice(&self) -> Verdict {
        if !self.a.subresource.is_empty() {
            return refuse("cannot authorize ResourceSlice subresources");
        }
        match self.a.verb {
            "create" => Ok(()),
            "get" | "update" | "patch" | "delete" => self.related(Object::ResourceSlice),
            "watch" | "list" | "deletecollection" => {
                match self.a.selects("spec.nodeName", self.node) {
                    true => Ok(()),
                    false => refuse(
                        "can only list/watch/deletecollection resourceslices with nodeName field selector",
                    ),
                }
            }
            _ => refuse(
                "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, deletecollection",
            ),
        }
    }

    /// Its own Node is told by its name, so that it can be looked for before it is there.
    fn node(&self) -> Verdict {
        let node = self.node;
        match (self.a.subresource, self.a.verb) {
            ("", "create" | "update" | "patch") | ("status", "update" | "patch") => Ok(()),
            ("", "get" | "list" | "watch") => match self.a.name {
                name if name == node => Ok(()),
                "" => Err(format!("node '{node}' cannot read all nodes, only its own Node object")),
                other => {
                    Err(format!("node '{node}' cannot read '{other}', only its own Node object"))
                }
            },
            _ => Err(String::new()),
        }
    }

    fn pod(&self) -> Verdict {
        match (self.a.subresource, self.a.verb) {
            ("", "get") => self.get(Object::Pod),
            ("", "list" | "watch") if self.a.selects("spec.nodeName", self.node) => Ok(()),
            ("", "list" | "watch") if !self.a.name.is_empty() => self.related(Object::Pod),
            ("", "list" | "watch") => {
                refuse("can only list/watch pods with spec.nodeName field selector")
            }
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => {
                Ok(())
            }
            _ => Err(String::new()),
        }
    }

    /// What all nodes may do alike (`bootstrappolicy.NodeRules`, but for what is decided above).
    fn by_role(&self) -> Verdict {
        let allowed = match (self.a.group, self.a.resource, self.a.subresource) {
            _ if self.a.path.is_some() => false,
            ("authentication.k8s.io", "tokenreviews", "")
            | ("authorization.k8s.io", "subjectaccessreviews" | "localsubjectaccessreviews", "") => {
                self.verb(&["create"])
            }
            ("", "services", "")
            | ("storage.k8s.io", "csidrivers", "")
            | ("node.k8s.io", "runtimeclasses", "") => self.is_read(),
            ("" | "events.k8s.io", "events", "") => self.verb(&["create", "update", "patch"]),
            ("", "endpoints", "") => self.verb(&["get"]),
            ("certificates.k8s.io", "certificatesigningrequests", "") => {
                self.is_read() || self.verb(&["create"])
            }
            _ => false,
        };
        if allowed { Ok(()) } else { Err(String::new()) }
    }
}
