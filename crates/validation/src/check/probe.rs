//! Trying checks out, and asking what was found so far: what schemas with alternatives need.

use serde_json::Value;

use super::{At, Check};

impl<'a> At<'a> {
    /// Does the check find nothing wrong here? What it finds is forgotten.
    pub fn is_clean(&self, check: impl FnOnce(&At<'_>)) -> bool {
        let apart = Check::default();
        check(&At { check: &apart, ..*self });
        apart.into_causes().is_empty()
    }

    /// Reasons of the faults found after the first `count`.
    pub fn reasons_since(&self, count: usize) -> Vec<String> {
        self.check.causes.borrow().iter().skip(count).map(|c| c.reason.clone()).collect()
    }

    /// The value is of a type the field does not take; `shown` stands for it.
    pub fn type_invalid_as(&self, shown: &Value, detail: &str) {
        self.fault("FieldValueTypeInvalid", self.valued("Invalid value", shown, detail));
    }
}
