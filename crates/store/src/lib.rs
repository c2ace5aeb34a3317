//! Revisioned objects: the embedded engine and the cache above it.
