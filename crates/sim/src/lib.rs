//! Virtual clock, faulty disk, faulty network, clusters from a seed, history checks.

pub mod clock;
pub mod disk;
pub mod net;
