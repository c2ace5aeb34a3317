//! Configurations of admission: their expressions must compile.

use ::admission::policies;

use crate::{DEFAULT, Hooks};

const CONDITIONAL: Hooks = Hooks { unconditional: false, ..DEFAULT };

pub(crate) const VALIDATING_POLICY: Hooks =
    Hooks { validate: policies::check_validating, ..CONDITIONAL };
pub(crate) const MUTATING_POLICY: Hooks =
    Hooks { validate: policies::check_mutating, ..CONDITIONAL };
pub(crate) const WEBHOOKS: Hooks = Hooks { validate: policies::check_webhooks, ..CONDITIONAL };
