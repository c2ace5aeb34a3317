//! The HTTP surface: one generic pipeline, one handler a verb, routed by the registry.
