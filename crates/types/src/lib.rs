//! The words of the domain as types; the stored message and the config documents as bytes. No I/O.

pub mod clock;
pub mod config;
pub mod id;
pub mod json;
pub mod limits;
pub mod message;
pub mod names;
pub mod offset;
pub mod properties;
pub mod record;
pub mod route;
pub mod scan;
pub mod settings;
pub mod subscription;
pub mod tags;

pub use clock::{Clock, Millis, SystemClock};
pub use message::{Message, SysFlag};
pub use offset::{LogOffset, QueueId, QueueOffset};
