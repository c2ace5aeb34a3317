//! Configurations of admission: their expressions must compile.

use ::admission::policies;

use crate::strategy::{DEFAULT, Hooks};

const CONDITIONAL: Hooks = Hooks { unconditional: false, ..DEFAULT };

pub(in crate::strategy) const VALIDATING_POLICY: Hooks =
    Hooks { validate: policies::check_validating, ..CONDITIONAL };
pub(in crate::strategy) const MUTATING_POLICY: Hooks =
    Hooks { validate: policies::check_mutating, ..CONDITIONAL };
pub(in crate::strategy) const WEBHOOKS: Hooks =
    Hooks { validate: policies::check_webhooks, ..CONDITIONAL };
