//! What can go wrong in the store, by who can act.

use std::io;
use std::path::PathBuf;

/// The store cannot be opened, read or closed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{path:?} is in use by another process (ours or Apache RocketMQ's); stop it first")]
    Locked { path: PathBuf },
    #[error("{path:?}: {what}")]
    Foreign { path: PathBuf, what: &'static str },
    #[error(
        "{path:?} is {found} bytes long, not {expected}: the store was made with another {setting}"
    )]
    WrongLength { path: PathBuf, found: u64, expected: u64, setting: &'static str },
    #[error("{path:?} does not start where the file before it ends")]
    Gap { path: PathBuf },
    #[error("{path:?} cannot be read ({reason}), and neither can its .bak")]
    Document { path: PathBuf, reason: String },
    #[error("{path:?}: {source}")]
    Io { path: PathBuf, source: io::Error },
}

impl Error {
    /// There is no room on the disk.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull)
    }

    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}

/// A message was not stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    // The caller can act.
    #[error("the message's properties are {len} bytes long, more than 32767")]
    PropertiesTooLong { len: usize },
    #[error(
        "the message's properties hold hundreds of zero bytes in a row, or end in one: after a \
         power cut they would be taken for lost"
    )]
    PropertiesZeroed,
    #[error("the topic is {len} bytes long, more than 255")]
    TopicTooLong { len: usize },
    #[error(
        "the message takes {len} bytes of the log, with what came in its batch; a commit-log file \
         has room for {max}, see mappedFileSizeCommitLog"
    )]
    LongerThanFile { len: u64, max: u64 },
    #[error("the batch holds no message")]
    EmptyBatch,
    // The operator can act.
    #[error("service not available now: {0}")]
    NotWritable(String),
    /// For as long as the disk is; nothing has to be restarted.
    #[error("service not available now: the broker's disk is full ({0}); make room")]
    DiskFull(String),
}

impl From<Error> for AppendError {
    fn from(error: Error) -> Self {
        if error.is_disk_full() {
            Self::DiskFull(error.to_string())
        } else {
            Self::NotWritable(format!("{error}; see to the disk"))
        }
    }
}

impl AppendError {
    /// The message itself is at fault; another try is in vain.
    #[must_use]
    pub fn is_illegal_message(&self) -> bool {
        !matches!(self, Self::NotWritable(_) | Self::DiskFull(_))
    }
}
