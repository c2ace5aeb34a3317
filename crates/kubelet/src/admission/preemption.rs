//! Which pods make room for a critical one: as few as possible, of the lowest quality of service
//! that suffices, by upstream's measure of distance.

use k8s_openapi::api::core::v1::Pod;

use super::{Inputs, Requests, is_critical, requests};
use crate::spec::resources::{Qos, qos};
use crate::spec::{spec_of, uid_of};

pub(crate) const REASON: &str = "Preempting";
pub(crate) const MESSAGE: &str = "Preempted in order to admit critical pod";

/// What is still missing, by resource.
type Missing = Vec<(String, i64)>;

struct Candidate {
    uid: String,
    requests: Requests,
}

fn request(requests: &Requests, name: &str) -> i64 {
    if name == "pods" { 1 } else { requests.get(name).copied().unwrap_or(0) }
}

fn is_preemptable(inputs: &Inputs<'_>, other: &Pod) -> bool {
    let (critical, statics) = (inputs.pod, inputs.statics);
    if is_critical(critical, statics) && !is_critical(other, statics) {
        return true;
    }
    match (spec_of(critical).priority, spec_of(other).priority) {
        (Some(own), Some(other)) => own > other,
        _ => false,
    }
}

fn without<'a>(missing: &Missing, gone: impl Iterator<Item = &'a Candidate> + Clone) -> Missing {
    let rest = missing.iter().map(|(name, amount)| {
        let freed: i64 = gone.clone().map(|c| request(&c.requests, name)).sum();
        (name.clone(), amount.saturating_sub(freed))
    });
    rest.filter(|(_, amount)| *amount > 0).collect()
}

/// The squared fractions that would still be missing.
fn distance(missing: &Missing, candidate: &Candidate) -> f64 {
    let one = |(name, amount): &(String, i64)| {
        let rest = (amount - request(&candidate.requests, name)).max(0);
        (rest as f64 / *amount as f64).powi(2)
    };
    missing.iter().map(one).sum()
}

fn described(missing: &Missing) -> String {
    let all = missing.iter().map(|(name, amount)| format!("(res: {name}, q: {amount}), "));
    format!("[{}]", all.collect::<String>())
}

/// Moves the chosen ones out of `from`.
fn choose(from: &mut Vec<Candidate>, mut missing: Missing) -> Result<Vec<Candidate>, String> {
    let mut chosen = Vec::new();
    while !missing.is_empty() {
        let size = |c: &Candidate| (request(&c.requests, "memory"), request(&c.requests, "cpu"));
        let best = (0..from.len()).min_by(|a, b| {
            let (a, b) = (&from[*a], &from[*b]);
            let nearer = distance(&missing, a).total_cmp(&distance(&missing, b));
            nearer.then_with(|| size(a).cmp(&size(b)))
        });
        let Some(best) = best else { return Err(unable(&missing)) };
        let pod = from.swap_remove(best);
        missing = without(&missing, std::iter::once(&pod));
        chosen.push(pod);
    }
    Ok(chosen)
}

fn unable(missing: &Missing) -> String {
    format!(
        "preemption: error finding a set of pods to preempt: no set of running pods found to reclaim resources: {}",
        described(missing)
    )
}

/// The uids of the pods to end.
pub(super) fn victims(inputs: &Inputs<'_>, missing: Missing) -> Result<Vec<String>, String> {
    let of = |class: Qos| -> Vec<Candidate> {
        let others = inputs.others.iter();
        let all = others.filter(|o| is_preemptable(inputs, o) && qos(o) == class);
        all.map(|o| Candidate { uid: uid_of(o).to_owned(), requests: requests(o) }).collect()
    };
    let (mut low, mut middle, mut high) =
        (of(Qos::BestEffort), of(Qos::Burstable), of(Qos::Guaranteed));
    let rest = without(&missing, low.iter().chain(&middle).chain(&high));
    if !rest.is_empty() {
        return Err(unable(&rest));
    }
    // The best quality goes only for what all the others together do not give.
    let high = choose(&mut high, without(&missing, low.iter().chain(&middle)))?;
    let middle = choose(&mut middle, without(&missing, low.iter().chain(&high)))?;
    let low = choose(&mut low, without(&missing, middle.iter().chain(&high)))?;
    Ok(low.into_iter().chain(middle).chain(high).map(|c| c.uid).collect())
}
