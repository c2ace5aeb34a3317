//! Constraints between the devices of a claim.

use k8s_openapi::api::resource::v1::{DeviceAttribute, DeviceConstraint};

use crate::slice::Device;

/// The value of an attribute that two devices can have in common.
#[derive(Debug, Clone, PartialEq)]
enum Common {
    Text(String),
    Number(i64),
    Flag(bool),
    /// Semantic versions have one form only, so that texts can be compared.
    Version(String),
}

impl Common {
    fn of(attribute: &DeviceAttribute) -> Option<Common> {
        match attribute {
            DeviceAttribute { string: Some(text), .. } => Some(Common::Text(text.clone())),
            DeviceAttribute { int: Some(number), .. } => Some(Common::Number(*number)),
            DeviceAttribute { bool: Some(flag), .. } => Some(Common::Flag(*flag)),
            DeviceAttribute { version: Some(text), .. } => Some(Common::Version(text.clone())),
            _ => None,
        }
    }
}

/// A constraint with the values of the devices that were added.
#[derive(Debug)]
pub(crate) struct Constraint<'a> {
    /// Names of requests it is about; all when empty.
    requests: &'a [String],
    attribute: &'a str,
    /// All values differ, instead of being the same.
    distinct: bool,
    values: Vec<Common>,
}

impl<'a> Constraint<'a> {
    /// None for a constraint that says nothing known.
    pub(crate) fn of(constraint: &'a DeviceConstraint) -> Option<Constraint<'a>> {
        let (attribute, distinct) =
            match (&constraint.match_attribute, &constraint.distinct_attribute) {
                (Some(attribute), _) => (attribute, false),
                (None, Some(attribute)) => (attribute, true),
                (None, None) => return None,
            };
        let requests = constraint.requests.as_deref().unwrap_or_default();
        Some(Constraint { requests, attribute, distinct, values: Vec::new() })
    }

    fn concerns(&self, request: &str, alternative: Option<&str>) -> bool {
        let is = |name: &String| {
            name == request
                || alternative
                    .is_some_and(|alternative| name.split_once('/') == Some((request, alternative)))
        };
        self.requests.is_empty() || self.requests.iter().any(is)
    }

    /// Adds a device, if it goes with those added before. Each that is added is removed before those that
    /// were added earlier.
    pub(crate) fn add(
        &mut self,
        request: &str,
        alternative: Option<&str>,
        device: &Device,
    ) -> bool {
        if !self.concerns(request, alternative) {
            return true;
        }
        let Some(value) = device.attribute(self.attribute).and_then(Common::of) else {
            return false;
        };
        let fits = match self.distinct {
            true => !self.values.contains(&value),
            false => self.values.first().is_none_or(|first| *first == value),
        };
        if fits {
            self.values.push(value);
        }
        fits
    }

    pub(crate) fn remove(&mut self, request: &str, alternative: Option<&str>) {
        if self.concerns(request, alternative) {
            self.values.pop();
        }
    }
}
