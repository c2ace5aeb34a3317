//! Cluster DNS: answers cluster names from memory, forwards the rest.
