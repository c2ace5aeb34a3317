//! Project automation: `cargo xtask test|bench|schema`.
fn main() {}
