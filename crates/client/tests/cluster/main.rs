//! What a client promises, against a network in memory whose brokers do as they are told.

#![allow(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

mod broker;
mod consuming;
mod pulling;
mod sending;
mod troubles;
mod world;
