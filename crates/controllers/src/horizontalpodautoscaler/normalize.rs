//! From what metrics ask for to what is done: limits, rates and stabilization.

use std::time::Duration;

use k8s_openapi::api::autoscaling::v2::{HPAScalingRules, HorizontalPodAutoscalerBehavior};
use tokio::time::Instant;

/// How long the highest recommendation holds before it goes down (upstream's
/// --horizontal-pod-autoscaler-downscale-stabilization).
const DOWN_WINDOW: Duration = Duration::from_secs(300);
/// Without rules a scale grows to at most this, or doubles.
const UP_MIN: i32 = 4;

/// What was recommended and done lately.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    recommendations: Vec<(Instant, i32)>,
    ups: Vec<(Instant, i32)>,
    downs: Vec<(Instant, i32)>,
}

/// A condition: its reason and message, and whether it speaks of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) reason: &'static str,
    pub(crate) message: &'static str,
}

const fn said(reason: &'static str, message: &'static str) -> Said {
    Said { reason, message }
}

const READY: Said = said("ReadyForNewScale", "recommended size matches current size");
const DOWN_STABLE: Said = said(
    "ScaleDownStabilized",
    "recent recommendations were higher than current one, applying the highest recent \
     recommendation",
);
const UP_STABLE: Said = said(
    "ScaleUpStabilized",
    "recent recommendations were lower than current one, applying the lowest recent recommendation",
);
const WITHIN: Said = said("DesiredWithinRange", "the desired count is within the acceptable range");
const TOO_FEW: Said =
    said("TooFewReplicas", "the desired replica count is less than the minimum replica count");
const TOO_MANY: Said =
    said("TooManyReplicas", "the desired replica count is more than the maximum replica count");
const UP_LIMIT: Said = said(
    "ScaleUpLimit",
    "the desired replica count is increasing faster than the maximum scale rate",
);
const DOWN_LIMIT: Said = said(
    "ScaleDownLimit",
    "the desired replica count is decreasing faster than the maximum scale rate",
);

/// What to do, with the two conditions that say why.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Normal {
    pub(crate) replicas: i32,
    pub(crate) able: Said,
    pub(crate) limit: Said,
    pub(crate) is_limited: bool,
}

/// The range and the present size.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Range {
    pub(crate) min: i32,
    pub(crate) max: i32,
    pub(crate) current: i32,
}

impl History {
    /// The first recommendation is the size there is.
    pub(crate) fn begin(&mut self, current: i32, now: Instant) {
        if self.recommendations.is_empty() {
            self.recommendations.push((now, current));
        }
    }

    pub(crate) fn scaled(&mut self, from: i32, to: i32, now: Instant) {
        match to > from {
            true => self.ups.push((now, to - from)),
            false => self.downs.push((now, from - to)),
        }
        // The longest period of a policy is half an hour.
        let recent = |(at, _): &(Instant, i32)| now.duration_since(*at) < Duration::from_secs(1800);
        self.ups.retain(recent);
        self.downs.retain(recent);
    }

    pub(crate) fn normalize(
        &mut self,
        range: Range,
        desired: i32,
        behavior: Option<&HorizontalPodAutoscalerBehavior>,
        now: Instant,
    ) -> Normal {
        let stable = match behavior {
            None => self.highest(desired, now),
            Some(behavior) => self.between(range.current, desired, behavior, now),
        };
        self.recommendations.push((now, desired));
        // The longest window is an hour.
        let recent = |(at, _): &(Instant, i32)| now.duration_since(*at) < Duration::from_secs(3600);
        self.recommendations.retain(recent);
        let able = match behavior {
            _ if stable == desired => READY,
            Some(_) if desired >= range.current => UP_STABLE,
            _ => DOWN_STABLE,
        };
        let (replicas, limit) = match behavior {
            None => by_default(range, stable),
            Some(behavior) => self.by_rules(range, stable, behavior, now),
        };
        Normal { replicas, able, limit, is_limited: replicas != stable }
    }

    fn highest(&self, desired: i32, now: Instant) -> i32 {
        let lately = self.recommendations.iter().filter(|r| now.duration_since(r.0) <= DOWN_WINDOW);
        lately.map(|r| r.1).chain([desired]).max().unwrap_or(desired)
    }

    fn between(
        &self,
        current: i32,
        desired: i32,
        behavior: &HorizontalPodAutoscalerBehavior,
        now: Instant,
    ) -> i32 {
        let window = |rules: Option<&HPAScalingRules>, default: Duration| {
            let seconds = rules.and_then(|r| r.stabilization_window_seconds);
            seconds.map_or(default, |s| Duration::from_secs(u64::try_from(s).unwrap_or(0)))
        };
        let within = |window: Duration| {
            let recent = move |r: &&(Instant, i32)| now.duration_since(r.0) < window;
            self.recommendations.iter().filter(recent).map(|r| r.1).chain([desired])
        };
        let lowest = within(window(behavior.scale_up.as_ref(), Duration::ZERO)).min();
        let highest = within(window(behavior.scale_down.as_ref(), DOWN_WINDOW)).max();
        current.max(lowest.unwrap_or(desired)).min(highest.unwrap_or(desired))
    }

    fn by_rules(
        &self,
        range: Range,
        desired: i32,
        behavior: &HorizontalPodAutoscalerBehavior,
        now: Instant,
    ) -> (i32, Said) {
        let current = range.current;
        if desired > current {
            let up = self.limit(current, behavior.scale_up.as_ref(), true, now).max(current);
            let (most, why) = if range.max > up { (up, UP_LIMIT) } else { (range.max, TOO_MANY) };
            if desired > most {
                return (most, why);
            }
        } else if desired < current {
            let down = self.limit(current, behavior.scale_down.as_ref(), false, now).min(current);
            let (least, why) =
                if range.min < down { (down, DOWN_LIMIT) } else { (range.min, TOO_FEW) };
            if desired < least {
                return (least, why);
            }
        }
        (desired, WITHIN)
    }

    /// How far the rules let the size go.
    fn limit(&self, current: i32, rules: Option<&HPAScalingRules>, up: bool, now: Instant) -> i32 {
        let select = rules.and_then(|r| r.select_policy.as_deref()).unwrap_or("Max");
        if select == "Disabled" {
            return current;
        }
        let sum = |events: &[(Instant, i32)], period: Duration| -> i32 {
            events.iter().filter(|e| now.duration_since(e.0) < period).map(|e| e.1).sum()
        };
        let allowed = |kind: &str, value: i32, seconds: i32| {
            let period = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
            let start = current - sum(&self.ups, period) + sum(&self.downs, period);
            let (start_f, share) = (f64::from(start), f64::from(value) / 100.0);
            match (kind, up) {
                ("Pods", true) => start + value,
                ("Pods", false) => start - value,
                (_, true) => (start_f * (1.0 + share)).ceil() as i32,
                (_, false) => (start_f * (1.0 - share)) as i32,
            }
        };
        let policies = rules.and_then(|r| r.policies.as_deref()).unwrap_or_default();
        let mut limits: Vec<i32> =
            policies.iter().map(|p| allowed(&p.type_, p.value, p.period_seconds)).collect();
        if limits.is_empty() {
            // The API's defaults.
            limits.push(allowed("Percent", 100, 15));
            limits.extend(up.then(|| allowed("Pods", 4, 15)));
        }
        // The largest change is the largest size upwards and the smallest downwards.
        let widest =
            if (select == "Max") == up { limits.iter().max() } else { limits.iter().min() };
        widest.copied().unwrap_or(current)
    }
}

fn by_default(range: Range, desired: i32) -> (i32, Said) {
    let up = range.current.saturating_mul(2).max(UP_MIN);
    let (most, why) = if range.max > up { (up, UP_LIMIT) } else { (range.max, TOO_MANY) };
    if desired < range.min {
        (range.min, TOO_FEW)
    } else if desired > most {
        (most, why)
    } else {
        (desired, WITHIN)
    }
}
