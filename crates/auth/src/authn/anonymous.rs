//! Requests without credentials: whether they are let in as nobody.

/// Where requests without credentials go on as `system:anonymous` (`--anonymous-auth`, or the
/// AuthenticationConfiguration's `anonymous`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Anonymous {
    Everywhere,
    /// At these paths, exactly.
    At(Vec<String>),
    Nowhere,
}

impl Anonymous {
    pub(super) fn allows(&self, path: &str) -> bool {
        match self {
            Anonymous::Everywhere => true,
            Anonymous::At(paths) => paths.iter().any(|allowed| allowed == path),
            Anonymous::Nowhere => false,
        }
    }
}
