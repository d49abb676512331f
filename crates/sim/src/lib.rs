//! Virtual clock, faulty disk, faulty network, clusters from a seed, history checks.

pub mod clients;
pub mod clock;
pub mod disk;
pub mod history;
pub mod net;
pub mod node;
pub mod promises;
