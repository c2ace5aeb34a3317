//! The admission chain: plugins in upstream's order. First all change the object, then, when it is complete
//! and valid, all may refuse it.

use std::time::Instant;

use serde_json::Value;

use crate::attributes::Attributes;
use crate::figures::{Phase, Times};
use crate::plugin::{Decision, Plugin, Verdict};
use crate::plugins::{self, Setup};

/// The plugins of one server.
pub struct Chain {
    plugins: Vec<Timed>,
    times: Times,
}

/// A plugin, and how long it takes.
struct Timed {
    plugin: Box<dyn Plugin>,
    times: Times,
}

impl Timed {
    /// The plugin's verdict, and its time unless it has nothing to say in this phase.
    async fn verdict(
        &self,
        (phase, request): (Phase, &Attributes<'_>),
        begun: Instant,
        decision: Decision<'_>,
    ) -> Verdict {
        if let Decision::Absent = decision {
            return Ok(());
        }
        let verdict = decision.made().await;
        self.times.add((phase, request.operation), verdict.is_err(), begun.elapsed());
        verdict
    }
}

impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.plugins.iter().map(|timed| timed.plugin.name())).finish()
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
        let timed = |plugin: Box<dyn Plugin>| {
            let times = Times::of(plugin.name());
            Timed { plugin, times }
        };
        let plugins = plugins::in_order(setup)?.into_iter().map(timed).collect();
        Ok(Chain { plugins, times: Times::default() })
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
        let (at, begun) = ((Phase::Admit, request), Instant::now());
        let mut verdict = Ok(());
        for timed in self.handling(request) {
            if timed.plugin.reads_managers() {
                api::apply::unfold(object);
            }
            let (begun, decision) = (Instant::now(), timed.plugin.mutate(request, object));
            verdict = timed.verdict(at, begun, decision).await;
            if verdict.is_err() {
                break;
            }
        }
        self.times.add((Phase::Admit, request.operation), verdict.is_err(), begun.elapsed());
        verdict
    }

    /// The second phase. Stops at the first refusal.
    pub async fn validate(&self, request: &Attributes<'_>, object: &Value) -> Verdict {
        let (at, begun) = ((Phase::Validate, request), Instant::now());
        let (mut verdict, mut whole) = (Ok(()), None);
        for timed in self.handling(request) {
            let object = match timed.plugin.reads_managers() {
                true => &**whole.get_or_insert_with(|| api::apply::unfolded(object)),
                false => object,
            };
            let (begun, decision) = (Instant::now(), timed.plugin.validate(request, object));
            verdict = timed.verdict(at, begun, decision).await;
            if verdict.is_err() {
                break;
            }
        }
        self.times.add((Phase::Validate, request.operation), verdict.is_err(), begun.elapsed());
        verdict
    }

    /// Whether some plugin looks at the managers of the request's objects.
    pub fn reads_managers(&self, request: &Attributes<'_>) -> bool {
        self.plugins.iter().any(|t| t.plugin.reads_managers() && t.plugin.handles(request))
    }

    fn handling(&self, request: &Attributes<'_>) -> impl Iterator<Item = &Timed> {
        self.plugins.iter().filter(move |timed| timed.plugin.handles(request))
    }
}
