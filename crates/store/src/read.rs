//! What a read of a queue asks for and gives. Spec `store.md` 11.

use apogee_types::{LogOffset, QueueOffset};

/// A message in a queue: where its record lies, how long it is, and its tag code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unit {
    pub at: LogOffset,
    pub len: u32,
    pub tags_code: i64,
}

impl Unit {
    /// Where the record ends. A damaged unit may say anything.
    #[must_use]
    pub fn end(&self) -> LogOffset {
        LogOffset(self.at.0.saturating_add(u64::from(self.len)))
    }
}

/// How much one read may return. The first message is returned whatever its size.
#[derive(Debug, Clone, Copy)]
pub struct ReadLimits {
    pub count: usize,
    pub bytes: usize,
}

/// How a read went; upstream's `GetMessageStatus`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadStatus {
    Found,
    NoMatchedMessage,
    MessageWasRemoving,
    OffsetFoundNull,
    OffsetOverflowBadly,
    OffsetOverflowOne,
    OffsetTooSmall,
    NoMatchedLogicQueue,
    NoMessageInQueue,
}

impl ReadStatus {
    /// Upstream's name, which clients show.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Found => "FOUND",
            Self::NoMatchedMessage => "NO_MATCHED_MESSAGE",
            Self::MessageWasRemoving => "MESSAGE_WAS_REMOVING",
            Self::OffsetFoundNull => "OFFSET_FOUND_NULL",
            Self::OffsetOverflowBadly => "OFFSET_OVERFLOW_BADLY",
            Self::OffsetOverflowOne => "OFFSET_OVERFLOW_ONE",
            Self::OffsetTooSmall => "OFFSET_TOO_SMALL",
            Self::NoMatchedLogicQueue => "NO_MATCHED_LOGIC_QUEUE",
            Self::NoMessageInQueue => "NO_MESSAGE_IN_QUEUE",
        }
    }
}

/// What a read found, beside the units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadResult {
    pub status: ReadStatus,
    /// From where to go on.
    pub next: QueueOffset,
    pub min: QueueOffset,
    pub end: QueueOffset,
}

/// Which message of a time is meant. Spec `store.md` 11.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Boundary {
    Lower,
    Upper,
}
