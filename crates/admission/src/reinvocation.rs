//! Reinvocation: when a webhook or mutating policy changed the object, all mutating plugins run once more, and
//! of webhooks and policies those that ask for it (apiserver `admission/reinvocation.go`, and the contexts of
//! both plugins, which have one rule).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;

/// The state of one request. A plugin with hooks (webhooks, policies) calls [`Reinvocation::begin`], asks
/// [`Reinvocation::should_run`] for each hook, tells of changes, and calls [`Reinvocation::end`].
#[derive(Debug, Default)]
pub struct Reinvocation(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The second pass is under way.
    is_second: bool,
    is_wanted: bool,
    plugins: BTreeMap<&'static str, Memory>,
}

/// What a plugin did in the first pass.
#[derive(Debug, Default)]
struct Memory {
    /// The object after its hooks; kept if some hook may run again.
    output: Option<Value>,
    /// Hooks that ran and run again if something changes the object.
    reinvocable: BTreeSet<String>,
    /// Hooks that run in the second pass.
    again: BTreeSet<String>,
}

impl Memory {
    fn require(&mut self) {
        self.again.append(&mut self.reinvocable);
    }
}

impl Reinvocation {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Before a plugin's hooks run. What other plugins changed since its hooks ran counts as a change.
    pub fn begin(&self, plugin: &'static str, object: &Value) {
        let mut state = self.state();
        let is_second = state.is_second;
        let memory = state.plugins.entry(plugin).or_default();
        if is_second && memory.output.as_ref().is_some_and(|output| output != object) {
            memory.require();
        }
    }

    /// Whether a hook runs in this pass.
    pub fn should_run(&self, plugin: &'static str, hook: &str) -> bool {
        let mut state = self.state();
        !state.is_second || state.plugins.entry(plugin).or_default().again.contains(hook)
    }

    /// A hook changed the object: those that ran before it and ask for it run again.
    pub fn changed(&self, plugin: &'static str) {
        let mut state = self.state();
        state.is_wanted = true;
        state.plugins.entry(plugin).or_default().require();
    }

    /// A hook ran that is to run again if something changes the object after it.
    pub fn reinvoke_if_changed(&self, plugin: &'static str, hook: &str) {
        let mut state = self.state();
        state.plugins.entry(plugin).or_default().reinvocable.insert(hook.to_owned());
    }

    /// After a plugin's hooks ran.
    pub fn end(&self, plugin: &'static str, object: &Value) {
        let mut state = self.state();
        let memory = state.plugins.entry(plugin).or_default();
        if !memory.reinvocable.is_empty() {
            memory.output = Some(object.clone());
        }
    }

    /// 0 in the first pass, 1 in the second.
    pub fn round(&self) -> usize {
        usize::from(self.state().is_second)
    }

    /// Begins the second pass, if a change asked for it; there is no third.
    pub(crate) fn begin_second(&self) -> bool {
        let mut state = self.state();
        let begins = state.is_wanted && !state.is_second;
        state.is_second |= begins;
        begins
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Reinvocation;

    #[test]
    fn hooks_that_ask_for_it_run_again_after_a_change() {
        let all = Reinvocation::default();
        let (before, after) = (json!({"a": 1}), json!({"a": 2}));
        all.begin("p", &before);
        assert!(all.should_run("p", "first") && all.should_run("p", "second"));
        all.reinvoke_if_changed("p", "first");
        assert!(!all.begin_second(), "nothing changed yet");
        all.changed("p");
        all.reinvoke_if_changed("p", "second");
        all.end("p", &after);
        assert!(all.begin_second());
        all.begin("p", &after);
        assert!(all.should_run("p", "first"));
        assert!(!all.should_run("p", "second"), "it saw the last change");
        assert!(!all.should_run("p", "other"), "it does not ask for it");
        assert!(!all.begin_second(), "there is no third pass");
    }

    #[test]
    fn changes_of_other_plugins_count() {
        let all = Reinvocation::default();
        all.begin("p", &json!(1));
        all.reinvoke_if_changed("p", "hook");
        all.end("p", &json!(1));
        all.changed("other");
        assert!(all.begin_second());
        all.begin("p", &json!(2));
        assert!(all.should_run("p", "hook"));
    }
}
