//! The door for RocketMQ's own protocol.

pub mod clients;
pub mod door;
pub mod errors;
pub mod groups;
pub mod locks;
pub mod offsets;
pub mod pending;
pub mod pull;
pub mod queries;
pub mod queues;
pub mod router;
pub mod send;
pub mod session;
pub mod topics;

pub use door::{Door, Peer};
pub use router::{Call, Refusal, Reply, Router};
