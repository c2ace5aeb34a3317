//! In which order pods end when the node shuts down, and how long each may take. Pure.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;

use crate::admission::SYSTEM_CRITICAL_PRIORITY;
use crate::spec::spec_of;

/// Pods of this priority and above, up to the next period's, have this long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShutdownPeriod {
    pub priority: i32,
    pub seconds: i64,
}

/// The periods of `shutdownGracePeriod` and `shutdownGracePeriodCriticalPods`: what critical pods do
/// not have is for the others.
pub fn periods(all: Duration, critical: Duration) -> Vec<ShutdownPeriod> {
    let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    match all.checked_sub(critical) {
        Some(others) if !all.is_zero() => vec![
            ShutdownPeriod { priority: 0, seconds: seconds(others) },
            ShutdownPeriod { priority: SYSTEM_CRITICAL_PRIORITY, seconds: seconds(critical) },
        ],
        _ => Vec::new(),
    }
}

/// How long a shutdown takes at most.
pub(super) fn total(periods: &[ShutdownPeriod]) -> Duration {
    let sum: i64 = periods.iter().map(|period| period.seconds).sum();
    Duration::from_secs(u64::try_from(sum).unwrap_or(0))
}

/// Pods that end together.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Group {
    pub(super) seconds: i64,
    pub(super) pods: Vec<Arc<Pod>>,
}

impl Group {
    /// A pod's own period counts when it is shorter.
    pub(super) fn grace(&self, pod: &Pod) -> i64 {
        let own = spec_of(pod).termination_grace_period_seconds;
        own.filter(|own| *own <= self.seconds).unwrap_or(self.seconds)
    }
}

/// The groups in the order of their ends, those without pods left out.
pub(super) fn groups(periods: &[ShutdownPeriod], pods: Vec<Arc<Pod>>) -> Vec<Group> {
    let mut periods = periods.to_vec();
    periods.sort_by_key(|period| period.priority);
    let mut groups: Vec<Group> =
        periods.iter().map(|p| Group { seconds: p.seconds, pods: Vec::new() }).collect();
    for pod in pods {
        let priority = spec_of(&pod).priority.unwrap_or(0);
        // Those below all periods have the lowest one.
        let above = periods.partition_point(|period| period.priority <= priority);
        if let Some(group) = groups.get_mut(above.saturating_sub(1)) {
            group.pods.push(pod);
        }
    }
    groups.retain(|group| !group.pods.is_empty());
    groups
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(priority: i32, grace: i64) -> Arc<Pod> {
        let spec =
            json!({"containers": [], "priority": priority, "terminationGracePeriodSeconds": grace});
        Arc::new(serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap())
    }

    #[test]
    fn critical_pods_have_their_part_at_the_end() {
        let seconds = Duration::from_secs;
        let found = periods(seconds(30), seconds(10));
        assert_eq!(found.iter().map(|p| p.seconds).collect::<Vec<_>>(), [20, 10]);
        assert_eq!(total(&found), seconds(30));
        assert!(periods(seconds(0), seconds(0)).is_empty());
        assert!(periods(seconds(5), seconds(10)).is_empty());
    }

    #[test]
    fn pods_end_from_low_to_high_priority() {
        let periods = [(100, 7), (0, 5), (2000, 9)]
            .map(|(priority, seconds)| ShutdownPeriod { priority, seconds });
        let pods: Vec<_> = [-5, 0, 99, 100, 1999, 2000, 9999].map(|n| pod(n, 30)).into();
        let found = groups(&periods, pods);
        let shown: Vec<(i64, usize)> = found.iter().map(|g| (g.seconds, g.pods.len())).collect();
        assert_eq!(shown, [(5, 3), (7, 2), (9, 2)]);
        assert_eq!(groups(&periods, vec![pod(100, 30)]).len(), 1, "no wait for nobody");
        assert!(groups(&[], vec![pod(0, 1)]).is_empty());
        assert_eq!((found[0].grace(&pod(0, 3)), found[0].grace(&pod(0, 30))), (3, 5));
    }
}
