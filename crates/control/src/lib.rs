//! Who serves what: route table, liveness, KV configuration. Pure state machines: no I/O, no clock.

pub mod kv;
pub mod routes;

pub use kv::KvConfig;
pub use routes::{ChannelId, Registered, Registration, RouteError, Routes};

type Map<K, V> = hashbrown::HashMap<K, V, foldhash::fast::RandomState>;
