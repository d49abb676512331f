//! Positions: in the commit log, in a queue, and which queue. Three types that do not mix.

use std::fmt;

/// A byte position in the commit log, counted over all segments (upstream: `phyOffset`).
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogOffset(pub u64);

/// The number of a message in its queue, from 0 (upstream: `logicOffset`, `queueOffset`).
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueOffset(pub u64);

/// The number of a queue of a topic, from 0. Non-negative, so that it fits the wire's `i32`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueId(u32);

impl LogOffset {
    #[must_use]
    pub fn plus(self, len: u64) -> Self {
        Self(self.0 + len)
    }
}

impl QueueOffset {
    #[must_use]
    pub fn plus(self, count: u64) -> Self {
        Self(self.0 + count)
    }
}

impl QueueId {
    /// `None` for a negative number, which on the wire means "any queue".
    #[must_use]
    pub const fn from_wire(value: i32) -> Option<Self> {
        if value < 0 { None } else { Some(Self(value as u32)) }
    }

    #[must_use]
    pub const fn to_wire(self) -> i32 {
        self.0 as i32
    }

    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

macro_rules! display_as_number {
    ($($name:ident)*) => { $(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )* };
}
display_as_number!(LogOffset QueueOffset QueueId);
