//! Who serves what: route table, liveness. Pure state machines.
