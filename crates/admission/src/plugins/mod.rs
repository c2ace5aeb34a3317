//! The built-in plugins. One table gives their order, which is upstream's (`AllOrderedPlugins`).

mod certificates;
mod limit_ranger;
mod lockouts;
mod namespace_lifecycle;
mod node_restriction;
mod nodes;
mod optional;
mod pod_security;
mod pods;
mod rbac_escalation;
mod resource_quota;
mod runtime_class;
mod secret_references;
mod service_account;
mod storage;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde_json::Value;

use crate::config::{Configuration, Selection};
use crate::plugin::Plugin;
use crate::policies::{Mutating, Policies, Validating};
use crate::webhooks::{Caller, MutatingWebhooks, ValidatingWebhooks, Webhooks};
use optional::{always, event_rate, image_policy, images, namespaces, node_selector};
use optional::{owner_references, services, tolerations};

/// Makes a client of the server of a kubeconfig.
pub type Reach<'s> = &'s dyn Fn(&str) -> Result<Arc<dyn Caller>, String>;

/// What the chain of a server is made of.
pub struct Setup<'s> {
    pub selection: &'s Selection,
    pub configuration: &'s Configuration,
    pub policies: Option<Arc<Policies>>,
    pub webhooks: Option<Arc<Webhooks>>,
    /// Reaches the server of a kubeconfig, by the path of its file.
    pub reach: Reach<'s>,
}

impl Default for Setup<'_> {
    /// The default plugins as far as they need nothing.
    fn default() -> Self {
        static NONE: (Selection, Configuration) = (Selection::NONE, Configuration::NONE);
        Setup {
            selection: &NONE.0,
            configuration: &NONE.1,
            policies: None,
            webhooks: None,
            reach: &|_| Err("there is no way to webhooks".into()),
        }
    }
}

type Boxed = Box<dyn Plugin>;
/// Makes a plugin; `None` where what it works on is not there.
type Make = fn(&Setup<'_>) -> Result<Option<Boxed>, String>;

/// A plugin by upstream's name, and whether it is on when no flag names it.
struct Entry {
    name: &'static str,
    is_default: bool,
    make: Make,
}

const fn on(name: &'static str, make: Make) -> Entry {
    Entry { name, is_default: true, make }
}

const fn off(name: &'static str, make: Make) -> Entry {
    Entry { name, is_default: false, make }
}

fn plain<P: Plugin + 'static>(plugin: P) -> Result<Option<Boxed>, String> {
    Ok(Some(Box::new(plugin)))
}

/// Plugins of features that v1.36 has off, which therefore do nothing.
fn idle(_: &Setup<'_>) -> Result<Option<Boxed>, String> {
    Ok(None)
}

/// All plugins, in upstream's order. NodeRestriction is on here: no cluster should be without it.
static TABLE: [Entry; 41] = [
    off("AlwaysAdmit", |_| plain(always::AlwaysAdmit)),
    off("NamespaceAutoProvision", |_| plain(namespaces::NamespaceAutoProvision)),
    on("NamespaceLifecycle", |_| plain(namespace_lifecycle::NamespaceLifecycle)),
    off("NamespaceExists", |_| plain(namespaces::NamespaceExists)),
    off("LimitPodHardAntiAffinityTopology", |_| {
        plain(optional::pods::LimitPodHardAntiAffinityTopology)
    }),
    on("LimitRanger", |_| plain(limit_ranger::LimitRanger)),
    on("ServiceAccount", |_| plain(service_account::ServiceAccount)),
    on("NodeRestriction", |_| plain(node_restriction::NodeRestriction)),
    on("TaintNodesByCondition", |_| plain(nodes::TaintNodesByCondition)),
    off("AlwaysPullImages", |_| plain(images::AlwaysPullImages)),
    off("ImagePolicyWebhook", image_policy),
    on("PodSecurity", |setup| plain(pod_security::PodSecurity::read(setup.configuration)?)),
    off("PodNodeSelector", |setup| {
        plain(node_selector::PodNodeSelector::read(setup.configuration.of("PodNodeSelector")))
    }),
    on("Priority", |_| plain(pods::Priority)),
    on("DefaultTolerationSeconds", |_| plain(pods::DefaultTolerationSeconds)),
    off("PodTolerationRestriction", |setup| {
        let own = setup.configuration.typed(
            "PodTolerationRestriction",
            "Configuration",
            "podtolerationrestriction.admission.k8s.io",
        )?;
        plain(tolerations::PodTolerationRestriction::read(own))
    }),
    off("EventRateLimit", |setup| {
        let group = "eventratelimit.admission.k8s.io";
        let own = setup.configuration.typed("EventRateLimit", "Configuration", group)?;
        plain(event_rate::EventRateLimit::read(own)?)
    }),
    off("ExtendedResourceToleration", |_| plain(optional::pods::ExtendedResourceToleration)),
    on("DefaultStorageClass", |_| plain(storage::DefaultStorageClass)),
    on("StorageObjectInUseProtection", |_| plain(storage::StorageObjectInUseProtection)),
    on("PodGroupProtection", idle),
    off("OwnerReferencesPermissionEnforcement", |_| {
        plain(owner_references::OwnerReferencesPermissionEnforcement)
    }),
    on("PersistentVolumeClaimResize", |_| plain(storage::PersistentVolumeClaimResize)),
    on("RuntimeClass", |_| plain(runtime_class::RuntimeClass)),
    on("CertificateApproval", |_| plain(certificates::CertificateApproval)),
    on("CertificateSigning", |_| plain(certificates::CertificateSigning)),
    on("ClusterTrustBundleAttest", |_| plain(certificates::ClusterTrustBundleAttest)),
    on("CertificateSubjectRestriction", |_| plain(certificates::CertificateSubjectRestriction)),
    on("DefaultIngressClass", |_| plain(storage::DefaultIngressClass)),
    off("DenyServiceExternalIPs", |_| plain(services::DenyServiceExternalIps)),
    on("PodTopologyLabels", |_| plain(nodes::PodTopologyLabels)),
    on("PodGroupWorkloadExists", idle),
    on("NodeDeclaredFeatureValidator", |_| plain(nodes::NodeDeclaredFeatureValidator)),
    on("JobValidation", idle),
    on("PodResizeValidator", |_| plain(nodes::PodResizeValidator)),
    on("MutatingAdmissionPolicy", |setup| {
        Ok(setup.policies.clone().map(|all| Box::new(Mutating(all)) as Boxed))
    }),
    on("MutatingAdmissionWebhook", |setup| {
        Ok(setup.webhooks.clone().map(|all| Box::new(MutatingWebhooks(all)) as Boxed))
    }),
    on("ValidatingAdmissionPolicy", |setup| {
        Ok(setup.policies.clone().map(|all| Box::new(Validating(all)) as Boxed))
    }),
    on("ValidatingAdmissionWebhook", |setup| {
        Ok(setup.webhooks.clone().map(|all| Box::new(ValidatingWebhooks(all)) as Boxed))
    }),
    on("ResourceQuota", |setup| plain(resource_quota::ResourceQuota::read(setup.configuration)?)),
    off("AlwaysDeny", |_| plain(always::AlwaysDeny)),
];

fn image_policy(setup: &Setup<'_>) -> Result<Option<Boxed>, String> {
    let settings = image_policy::Settings::read(setup.configuration.of("ImagePolicyWebhook"))?;
    let caller = (setup.reach)(&settings.kubeconfig)?;
    plain(image_policy::ImagePolicyWebhook::new(settings, caller))
}

/// The plugins that are on. The error says what of flags and configuration cannot be used.
pub(crate) fn in_order(setup: &Setup<'_>) -> Result<Vec<Boxed>, String> {
    let names: Vec<&str> = TABLE.iter().map(|entry| entry.name).collect();
    setup.selection.check(&names)?;
    let mut plugins: Vec<Boxed> = Vec::new();
    for entry in TABLE.iter().filter(|e| setup.selection.has(e.name, e.is_default)) {
        // Plugins that upstream does not have, which no flag names.
        if entry.name == "MutatingAdmissionPolicy" {
            plugins.push(Box::new(rbac_escalation::RbacEscalation));
            plugins.push(Box::new(lockouts::WebhookLockouts));
        }
        let made = (entry.make)(setup)
            .map_err(|why| format!("couldn't init admission plugin {:?}: {why}", entry.name))?;
        plugins.extend(made);
    }
    Ok(plugins)
}

/// Without everything that says no more than its absence.
fn bare(value: &Value) -> Option<Value> {
    match value {
        Value::Null => None,
        Value::String(text) => (!text.is_empty()).then(|| value.clone()),
        Value::Array(list) => {
            let list: Vec<Value> =
                list.iter().map(|item| bare(item).unwrap_or(Value::Null)).collect();
            (!list.is_empty()).then_some(Value::Array(list))
        }
        Value::Object(map) => {
            let set = map.iter().filter_map(|(key, value)| Some((key.clone(), bare(value)?)));
            let map: serde_json::Map<String, Value> = set.collect();
            (!map.is_empty()).then_some(Value::Object(map))
        }
        other => Some(other.clone()),
    }
}
