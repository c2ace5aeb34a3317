//! The admission chain: plugins in upstream's order. First all change the object, then, when it is complete
//! and valid, all may refuse it.

use serde_json::Value;

use crate::attributes::Attributes;
use crate::plugin::{Plugin, Verdict};
use crate::plugins::{self, Setup};

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
    /// The built-in plugins that are on by default.
    fn default() -> Chain {
        Chain::new(&Setup::default()).expect("the defaults are in order")
    }
}

impl Chain {
    /// The default plugins with policies.
    #[cfg(test)]
    pub(crate) fn of_policies(policies: std::sync::Arc<crate::policies::Policies>) -> Chain {
        let setup = Setup { policies: Some(policies), ..Setup::default() };
        Chain::new(&setup).expect("the defaults are in order")
    }

    /// The plugins of a server. The error says what of flags and configuration cannot be used.
    pub fn new(setup: &Setup<'_>) -> Result<Chain, String> {
        Ok(Chain { plugins: plugins::in_order(setup)? })
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
