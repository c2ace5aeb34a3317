//! Why a credential is not accepted.

use super::accounts::LegacyUse;

/// Why a credential is not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub why: String,
    /// The token without an end that it is, where that was refused because somebody marked it as invalid.
    pub invalidated: Option<Box<LegacyUse>>,
}

impl From<String> for Refusal {
    fn from(why: String) -> Refusal {
        Refusal { why, invalidated: None }
    }
}
