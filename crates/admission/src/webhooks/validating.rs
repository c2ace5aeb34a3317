//! Validating webhooks, called at once (apiserver `plugin/webhook/validating`).

use std::sync::Arc;

use api::Status;
use api::registry::Resource;
use serde_json::Value;

use super::call::{self, InVersion};
use super::hook::Hook;
use super::metrics;
use crate::attributes::Attributes;
use crate::plugin::Verdict;

/// The object before and after the request, in each version that a hook wants.
struct Forms<'a>(Vec<(&'a Resource, Value, Value)>);

impl<'a> Forms<'a> {
    /// The place of the objects in the version of a row.
    async fn of(
        &mut self,
        row: &'a Resource,
        request: &Attributes<'a>,
        object: &Value,
    ) -> Result<usize, Status> {
        let same = |(other, ..): &(&Resource, Value, Value)| {
            (other.group, other.version) == (row.group, row.version)
        };
        if let Some(at) = self.0.iter().position(same) {
            return Ok(at);
        }
        let old = request.old.cloned().unwrap_or(Value::Null);
        let mut converted = [object.clone(), old];
        for object in &mut converted {
            let new = request.versions.convert(object.take(), request.row, row).await;
            *object = new.map_err(|status| Status::internal(status.message))?;
        }
        let [object, old] = converted;
        self.0.push((row, object, old));
        Ok(self.0.len() - 1)
    }

    fn shown(&self, at: usize) -> InVersion<'_> {
        let (row, object, old) = &self.0[at];
        InVersion { row, object, old }
    }
}

/// The request through all hooks; the first refusal in their order counts.
pub(super) async fn dispatch(
    hooks: &[Arc<Hook>],
    request: &Attributes<'_>,
    object: &Value,
) -> Verdict {
    let mut forms = Forms(Vec::new());
    let mut matching: Vec<(&Hook, usize)> = Vec::new();
    for hook in hooks {
        let Some(row) = hook.constraints.matches(request, object)? else { continue };
        let at = forms.of(row, request, object).await?;
        if call::meets_conditions(hook, request, &forms.shown(at)).await? {
            matching.push((hook, at));
        }
    }
    let calls = matching.into_iter().enumerate().map(|(index, (hook, at))| {
        let shown = forms.shown(at);
        async move {
            let begun = std::time::Instant::now();
            let asked = call::call(hook, request, shown, false).await;
            metrics::called(hook, (request, false), begun, &asked);
            let key =
                format!("failed-open.validating.webhook.admission.k8s.io/round_0_index_{index}");
            asked
                .map(drop)
                .or_else(|failure| call::after_failure(hook, (request, object), failure, &key))
        }
    });
    let verdicts = futures::future::join_all(calls).await;
    verdicts.into_iter().collect()
}
