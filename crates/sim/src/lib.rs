//! Virtual clock, faulty disk, faulty network, clusters from a seed, history checks.
