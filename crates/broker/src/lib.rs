//! What a broker *does*: publish, pull, offsets, retry, delay. Knows no wire format.

pub mod attributes;
pub mod broker;
pub mod clients;
pub mod created;
pub mod days;
pub mod delay;
pub mod documents;
pub mod error;
pub mod groups;
pub mod locks;
pub mod offsets;
pub mod publish;
pub mod pull;
pub mod queries;
pub mod queues;
pub mod retry;
pub mod topics;
pub mod views;
pub mod waiters;

pub use broker::{Broker, Identity};
pub use error::Error;

/// A map keyed by names from outside. Its order is random and must not reach the wire.
pub type Map<K, V> = hashbrown::HashMap<K, V, foldhash::fast::RandomState>;

/// The value of `name`, which is copied only if it is new.
fn entry<'m, V: Default>(map: &'m mut Map<std::sync::Arc<str>, V>, name: &str) -> &'m mut V {
    if !map.contains_key(name) {
        map.insert(name.into(), V::default());
    }
    map.get_mut(name).expect("it was there or was just put there")
}
