//! The Kubernetes API as data, and the pure algorithms on it: no I/O, no async, no clock, no threads.
