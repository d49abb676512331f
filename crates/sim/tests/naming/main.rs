//! What name servers know of brokers, and what clients are told: whatever starts, stops or breaks.

#![allow(clippy::unwrap_used, reason = "a test")]

mod registering;
mod requests;
mod world;
