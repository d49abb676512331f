//! Keeps messages: one log, its indexes, what survives a crash. Knows no network, no topic policy,
//! no runtime.

pub mod checkpoint;
pub mod commit_log;
pub mod consume_queue;
pub mod disk;
pub mod dispatch;
pub mod documents;
pub mod error;
pub mod frozen;
pub mod index;
pub mod open_files;
mod owner;
mod queue_ends;
pub mod queues;
pub mod read;
pub mod rebuild;
pub mod recovery;
pub mod retention;
pub mod segments;
pub mod statistics;
pub mod store;
pub mod verify;
pub mod view;
mod walk;
pub mod watermark;

pub use apogee_types::settings::FlushMode;
pub use disk::{Disk, DiskFile, RealDisk};
pub use dispatch::Arrival;
pub use documents::Documents;
pub use error::{AppendError, Error};
pub use frozen::Frozen;
pub use queues::Recent;
pub use read::{Boundary, ReadLimits, ReadResult, ReadStatus, RecordReader, Unit};
pub use statistics::{Flushes, Statistics};
pub use store::{Appended, Batch, Recovery, Settings, Store};
pub use view::{View, most_frequent};
pub use walk::Step;
pub use watermark::Watermark;
