//! What a client promises, against a network in memory whose brokers do as they are told.

mod broker;
mod consuming;
mod sending;
mod world;
