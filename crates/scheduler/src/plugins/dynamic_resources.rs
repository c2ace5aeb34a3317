//! DynamicResources: not done. A pod that names resource claims stays pending and is told so; pods
//! without claims get the words that upstream's plugin has for them.

use super::names;
use crate::event::{Action, Interest, Resource};
use crate::framework::{
    Code, Cycle, Filters, NodeStatuses, Plugin, Points, PostFilter, PreFilter, Preparing, reject,
};

#[derive(Debug)]
pub(crate) struct DynamicResources;

/// PreFilter was reached: an earlier plugin's rejection ends the cycle before it.
#[derive(Debug, Clone)]
struct Reached;

impl Plugin for DynamicResources {
    fn name(&self) -> &'static str {
        names::DYNAMIC_RESOURCES
    }

    fn points(&self) -> Points {
        Points::PRE_FILTER.and(Points::FILTER).and(Points::POST_FILTER)
    }

    fn events(&self) -> &'static [Interest] {
        &[(Resource::Pod, Action::POD_CLAIM)]
    }

    fn pre_filter(&self, cycle: &mut Preparing<'_>) -> PreFilter {
        cycle.state.set(Reached);
        let claims = cycle.pod.spec().and_then(|s| s.resource_claims.as_deref());
        if claims.unwrap_or_default().is_empty() {
            return PreFilter::Skip;
        }
        let why = "pod has resource claims, which this scheduler cannot allocate";
        PreFilter::Reject(reject(Code::Unresolvable, self.name(), why))
    }

    fn post_filter(&self, cycle: &Cycle<'_>, _: &dyn Filters, _: &NodeStatuses) -> PostFilter {
        if cycle.state.get::<Reached>().is_none() {
            // Upstream looks for the state that its PreFilter leaves, and reports that it is missing.
            return PostFilter::Error("not found".into());
        }
        PostFilter::Unschedulable {
            reason: "no new claims to deallocate".into(),
            clear_nomination: false,
        }
    }
}
