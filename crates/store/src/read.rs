//! What a read of a queue asks for and gives. Spec `store.md` 11.

use std::sync::Arc;

use apogee_types::{LogOffset, QueueOffset};
use bytes::Bytes;

use crate::disk::DiskFile;
use crate::segments::Segments;

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

/// Gives the records of units, one after the other: the file that the last one lay in is at hand.
pub struct RecordReader<'s> {
    log: &'s Segments,
    /// The file, and the offset of its first byte.
    file: Option<(Arc<dyn DiskFile>, u64)>,
}

impl<'s> RecordReader<'s> {
    pub(crate) fn new(log: &'s Segments) -> Self {
        Self { log, file: None }
    }

    /// Appends the record to `out`, if there still is one.
    pub fn copy(&mut self, unit: &Unit, out: &mut Vec<u8>) {
        if let Some((file, place)) = self.locate(unit) {
            file.append_to(place, unit.len as usize, out);
        }
    }

    /// The record, not copied.
    pub fn slice(&mut self, unit: &Unit) -> Option<Bytes> {
        let (file, place) = self.locate(unit)?;
        Some(file.slice(place, unit.len as usize))
    }

    /// Where the record lies. A queue file that is damaged may say anything.
    fn locate(&mut self, unit: &Unit) -> Option<(&dyn DiskFile, u64)> {
        let at = unit.at.0;
        let is_in = |(file, start): &(Arc<dyn DiskFile>, u64)| {
            at.checked_sub(*start).is_some_and(|place| place < file.len())
        };
        if !self.file.as_ref().is_some_and(is_in) {
            let (file, place) = self.log.locate(at)?;
            self.file = Some((file, at - place));
        }
        let (file, start) = self.file.as_ref()?;
        let place = at - start;
        (place + u64::from(unit.len) <= file.len()).then_some((&**file, place))
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::disk::{Disk, RealDisk};

    #[test]
    fn records_are_found_in_any_order_and_none_outside_the_files() {
        const LEN: u64 = 4096;
        let dir = tempfile::tempdir().unwrap();
        for start in [LEN, 2 * LEN] {
            let file = RealDisk.open(&dir.path().join(format!("{start:020}")), LEN).unwrap();
            file.write_at(100, &[(start / LEN) as u8; 50]);
        }
        let log = Segments::open(Arc::new(RealDisk), dir.path(), LEN, "").unwrap();
        let mut records = RecordReader::new(&log);
        let unit = |at, len| Unit { at: LogOffset(at), len, tags_code: 0 };
        for number in [1, 1, 2, 1, 2] {
            let whole = unit(number * LEN + 100, 50);
            let mut copied = Vec::new();
            records.copy(&whole, &mut copied);
            assert_eq!(copied, [number as u8; 50]);
            assert_eq!(records.slice(&whole).unwrap(), copied);
            // Those that only a damaged queue has.
            let damaged = [(0, 50), (2 * LEN - 9, 10), (3 * LEN, 1), (u64::MAX, u32::MAX)];
            for unit in damaged.map(|(at, len)| unit(at, len)) {
                assert_eq!(records.slice(&unit), None, "{unit:?}");
            }
        }
    }
}
