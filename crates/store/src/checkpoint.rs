//! What is known to be on the device: the file `checkpoint`. Spec `store.md` 6, `since-5.3.md` 5.1.
//!
//! ```text
//!  log ms 8 | queues ms 8 | index ms 8 | master flushed 8 | confirmed 8
//!  | queues log offset 8 | ours: index log offset 8, index file 8, next entry 8 | zeros
//! ```
//!
//! Apache leaves our part as it is. That is safe: index files only grow, so a mark that is too old
//! stays true, and one whose file is gone is seen.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use apogee_types::{LogOffset, Millis};
use parking_lot::Mutex;

use crate::disk::{Disk, DiskFile};
use crate::error::Error;

const LEN: u64 = 4096;
/// What is not zeros.
const USED_LEN: usize = 72;
const NAME: &str = "checkpoint";

/// The fields; times are store times of records.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    /// The newest record that the device has.
    pub log_ms: Millis,
    /// The newest record whose queue entry the device has.
    pub queues_ms: Millis,
    /// The newest entry of the index that the device has; while we run, that it has.
    pub index_ms: Millis,
    /// Where the record of `queues_ms` starts.
    pub queues_at: LogOffset,
    pub index: IndexMark,
}

impl Checkpoint {
    /// Reads the fields from the start of the file.
    fn decode(bytes: &[u8; USED_LEN]) -> Self {
        let field = |index: usize| {
            let bytes = bytes[8 * index..8 * index + 8].try_into().expect("eight bytes");
            i64::from_be_bytes(bytes).max(0)
        };
        Self {
            log_ms: field(0),
            queues_ms: field(1),
            index_ms: field(2),
            queues_at: LogOffset(field(5) as u64),
            index: IndexMark {
                end: LogOffset(field(6) as u64),
                file: field(7) as u64,
                next_entry: field(8) as u64,
            },
        }
    }

    /// What a store's file says, without opening it for writing; nothing if it is not there.
    pub(crate) fn read(disk: &dyn Disk, root: &Path) -> Result<Self, Error> {
        let path = root.join(NAME);
        let mut bytes = disk.read(&path).map_err(Error::io(&path))?.unwrap_or_default();
        bytes.resize(USED_LEN, 0);
        Ok(Self::decode(bytes.first_chunk().expect("as long as it was just made")))
    }
}

/// How much of the index the device has.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct IndexMark {
    /// The keys of all records below are in it; 0 if that is not known.
    pub end: LogOffset,
    /// The newest file: its name as a number, 0 if there was none.
    pub file: u64,
    /// The number of the next entry in it.
    pub next_entry: u64,
}

/// The file. Written values must be safe: too small costs time at the next start, too large costs
/// queue entries.
pub struct CheckpointFile {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    /// What the file holds; who writes it has the lock.
    known: Mutex<Checkpoint>,
}

impl CheckpointFile {
    /// Whether a store has one; an operator may have removed it, to have all built anew.
    pub fn is_there(disk: &dyn Disk, root: &Path) -> Result<bool, Error> {
        let path = root.join(NAME);
        Ok(disk.read(&path).map_err(Error::io(path))?.is_some())
    }

    pub fn open(disk: &dyn Disk, root: &Path) -> Result<Self, Error> {
        let path = root.join(NAME);
        let file = disk.open(&path, LEN).map_err(Error::io(&path))?;
        file.allocate(0, LEN).map_err(Error::io(&path))?;
        let mut bytes = [0; USED_LEN];
        file.read_at(0, &mut bytes);
        Ok(Self { path, file, known: Mutex::new(Checkpoint::decode(&bytes)) })
    }

    #[must_use]
    pub fn load(&self) -> Checkpoint {
        *self.known.lock()
    }

    /// Says up to when the index goes, without bringing it to the device. After the death of a
    /// process Apache deletes index files that are newer than that, however much they hold, and
    /// builds anew only the keys of the log's last files. We go by the mark alone, so without one
    /// nothing is said.
    pub fn tell_index_ms(&self, ms: Millis) {
        let mut known = self.known.lock();
        if known.index.end != LogOffset(0) && known.index_ms != ms {
            known.index_ms = ms;
            self.write(&known);
        }
    }

    pub fn save(&self, checkpoint: &Checkpoint) -> Result<(), Error> {
        let mut known = self.known.lock();
        *known = *checkpoint;
        self.write(&known);
        drop(known);
        self.file.sync(0, LEN).map_err(Error::io(&self.path))
    }

    /// Written at once: a power cut between two fields would leave a mark that vouches for the
    /// index of another time.
    fn write(&self, checkpoint: &Checkpoint) {
        let mut bytes = [0; USED_LEN];
        self.file.read_at(0, &mut bytes);
        let times = [checkpoint.log_ms, checkpoint.queues_ms, checkpoint.index_ms];
        for (place, value) in bytes.chunks_exact_mut(8).zip(times) {
            place.copy_from_slice(&value.to_be_bytes());
        }
        let index = &checkpoint.index;
        let ours = [checkpoint.queues_at.0, index.end.0, index.file, index.next_entry];
        for (place, value) in bytes[40..].chunks_exact_mut(8).zip(ours) {
            place.copy_from_slice(&value.to_be_bytes());
        }
        self.file.write_at(0, &bytes);
    }
}
