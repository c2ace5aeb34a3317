//! Consumable capacity: how much of a device a request takes (`consumable_capacity.go`).

use std::collections::BTreeMap;

use api::quantity::Quantity;
use k8s_openapi::api::resource::v1::DeviceCapacity;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

/// Amounts by name.
pub(crate) type Amounts = BTreeMap<String, Quantity>;

pub(crate) fn quantity(text: &Text) -> Result<Quantity, String> {
    Quantity::parse(&text.0).map_err(|error| format!("{:?}: {error}", text.0))
}

/// An amount that a device has, and which parts of it can be asked for.
#[derive(Debug)]
pub(crate) struct Capacity {
    pub(crate) value: Quantity,
    policy: Option<Policy>,
}

#[derive(Debug, Default)]
struct Policy {
    default: Option<Quantity>,
    range: Option<Range>,
    /// In ascending order, as validation has it.
    values: Vec<Quantity>,
}

#[derive(Debug)]
struct Range {
    min: Quantity,
    max: Option<Quantity>,
    step: Option<Quantity>,
}

impl Capacity {
    pub(crate) fn new(capacity: &DeviceCapacity) -> Result<Capacity, String> {
        let policy = match &capacity.request_policy {
            None => None,
            Some(policy) => Some(Policy {
                default: policy.default.as_ref().map(quantity).transpose()?,
                range: match &policy.valid_range {
                    None => None,
                    Some(range) => Some(Range {
                        min: quantity(&range.min)?,
                        max: range.max.as_ref().map(quantity).transpose()?,
                        step: range.step.as_ref().map(quantity).transpose()?,
                    }),
                },
                values: policy
                    .valid_values
                    .iter()
                    .flatten()
                    .map(quantity)
                    .collect::<Result<_, _>>()?,
            }),
        };
        Ok(Capacity { value: quantity(&capacity.value)?, policy })
    }

    /// What a request for this much takes: the next amount that the policy knows. Without a request it is
    /// the policy's default, or all.
    fn consumed(&self, requested: Option<&Quantity>) -> Quantity {
        let Some(policy) = &self.policy else { return *requested.unwrap_or(&self.value) };
        let Some(requested) = requested else { return policy.default.unwrap_or(self.value) };
        match &policy.range {
            Some(range) => range.round_up(requested),
            None => *policy.values.iter().find(|v| *v >= requested).unwrap_or(requested),
        }
    }

    /// Whether the policy knows this amount.
    fn allows(&self, amount: &Quantity) -> bool {
        let Some(policy) = &self.policy else { return true };
        if policy.default.is_some_and(|default| default.partial_cmp(amount) == EQUAL) {
            return true;
        }
        match &policy.range {
            Some(range) => range.allows(amount),
            None => {
                policy.values.is_empty()
                    || policy.values.iter().any(|v| v.partial_cmp(amount) == EQUAL)
            }
        }
    }
}

const EQUAL: Option<std::cmp::Ordering> = Some(std::cmp::Ordering::Equal);

impl Range {
    fn round_up(&self, requested: &Quantity) -> Quantity {
        if *requested < self.min {
            return self.min;
        }
        // Validation refuses a step of zero.
        let Some(step) = self.step.map(|s| s.value()).filter(|s| *s > 0) else { return *requested };
        let added = requested.value().saturating_sub(self.min.value());
        let steps = added / step + i64::from(added % step != 0);
        Quantity::from_bytes(self.min.value().saturating_add(step.saturating_mul(steps)))
    }

    fn allows(&self, amount: &Quantity) -> bool {
        let on_step = match self.step.map(|s| s.value()).filter(|s| *s > 0) {
            Some(step) => amount.value().saturating_sub(self.min.value()) % step == 0,
            None => true,
        };
        on_step && self.max.is_none_or(|max| *amount <= max)
    }
}

/// What a request takes of a device that has this, which is all that the request names.
fn consumed<'d>(
    requested: &'d Amounts,
    has: &'d BTreeMap<String, Capacity>,
) -> impl Iterator<Item = (&'d String, &'d Capacity, Quantity)> {
    let of = |(name, capacity): (&'d String, &'d Capacity)| {
        (name, capacity, capacity.consumed(requested.get(name)))
    };
    has.iter().map(of)
}

/// What a request takes of a device that has this.
pub(crate) fn consumption(requested: &Amounts, has: &BTreeMap<String, Capacity>) -> Amounts {
    consumed(requested, has).map(|(name, _, amount)| (name.clone(), amount)).collect()
}

/// Whether a device that has this has enough left, `taken` being shares of it.
pub(crate) fn suffices(
    requested: &Amounts,
    has: &BTreeMap<String, Capacity>,
    taken: [Option<&Amounts>; 2],
) -> bool {
    if !requested.keys().all(|name| has.contains_key(name)) {
        return false;
    }
    consumed(requested, has).all(|(name, capacity, amount)| {
        let taken = taken.iter().flatten().filter_map(|amounts| amounts.get(name));
        let sum = taken.fold(amount, |sum, share| sum + *share);
        capacity.allows(&amount) && sum <= capacity.value
    })
}

/// The amounts of a request, by name.
pub(crate) fn requested(
    of: Option<&k8s_openapi::api::resource::v1::CapacityRequirements>,
) -> Result<Amounts, String> {
    let mut amounts = BTreeMap::new();
    for (name, text) in of.into_iter().flat_map(|c| c.requests.iter().flatten()) {
        amounts.insert(name.clone(), quantity(text)?);
    }
    Ok(amounts)
}
