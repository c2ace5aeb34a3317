//! RuntimeClasses: which of the runtime's handlers a pod asks for, and what a handler can do.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::node::v1::RuntimeClass;
use runtime::cri::RuntimeHandlerFeatures;

use crate::kubelet::Shared;
use crate::spec::{described, spec_of};

/// The handler of the class that the pod names; empty for the runtime's default one. A class that
/// does not exist is an error: the pod waits for it rather than run without.
pub(crate) async fn handler(shared: &Shared, pod: &Pod) -> Result<String, String> {
    let spec = spec_of(pod);
    let Some(name) = spec.runtime_class_name.as_deref().filter(|n| !n.is_empty()) else {
        return Ok(String::new());
    };
    match shared.client.get::<RuntimeClass>("", name).await {
        Ok(class) => Ok(class.handler),
        Err(error) if error.is_not_found() => {
            Err(format!("runtimeclass.node.k8s.io \"{name}\" not found"))
        }
        Err(error) => {
            Err(format!("failed to lookup RuntimeClass {name} for pod {}: {error}", described(pod)))
        }
    }
}

impl Shared {
    /// What the runtime says that one of its handlers can do.
    pub(crate) async fn handler_features(
        &self,
        handler: &str,
    ) -> Result<RuntimeHandlerFeatures, String> {
        let status = self.runtime.status(false).await.map_err(|e| e.chain())?;
        let found = status.runtime_handlers.into_iter().find(|h| h.name == handler);
        let found = found.ok_or_else(|| format!("unknown runtime handler \"{handler}\""))?;
        Ok(found.features.unwrap_or_default())
    }
}
