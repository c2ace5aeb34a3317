//! The admission chain: plugins in upstream's order. First all change the object, then, when it is complete
//! and valid, all may refuse it.

use std::sync::Arc;

use serde_json::Value;

use crate::attributes::Attributes;
use crate::plugin::{Plugin, Verdict};
use crate::plugins;
use crate::policies::Policies;

/// The plugins of one server.
pub struct Chain {
    plugins: Vec<Box<dyn Plugin>>,
}

impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.plugins.iter().map(|plugin| plugin.name())).finish()
    }
}

impl Default for Chain {
    /// The built-in plugins that v1.36 enables by default.
    fn default() -> Chain {
        Chain { plugins: plugins::in_order(None) }
    }
}

impl Chain {
    /// The same with the policies of a server.
    pub fn new(policies: Arc<Policies>) -> Chain {
        Chain { plugins: plugins::in_order(Some(policies)) }
    }

    /// The first phase: once, and once more if a webhook or policy changed the object. Stops at the first
    /// refusal.
    pub async fn mutate(&self, request: &Attributes<'_>, object: &mut Value) -> Verdict {
        self.mutate_once(request, object).await?;
        match request.reinvocation.begin_second() {
            true => self.mutate_once(request, object).await,
            false => Ok(()),
        }
    }

    async fn mutate_once(&self, request: &Attributes<'_>, object: &mut Value) -> Verdict {
        for plugin in self.plugins.iter().filter(|plugin| plugin.handles(request)) {
            plugin.mutate(request, object).made().await?;
        }
        Ok(())
    }

    /// The second phase. Stops at the first refusal.
    pub async fn validate(&self, request: &Attributes<'_>, object: &Value) -> Verdict {
        for plugin in self.plugins.iter().filter(|plugin| plugin.handles(request)) {
            plugin.validate(request, object).made().await?;
        }
        Ok(())
    }
}
