//! The proxy against the real kernel, in namespaces made and removed by each test. Needs root.

mod balance;
mod cost;
mod external;
mod objects;
mod world;
