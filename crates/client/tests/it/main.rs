//! The HTTPS transport against servers on loopback.

mod https;
