//! Checks index files in step with a walk through the log: entries stand in the log's order.

use std::path::Path;
use std::sync::Arc;

use apogee_types::properties::{find, name};
use apogee_types::record::Record;

use super::{
    ENTRY_LEN, HEADER_LEN, Header, Index, IndexFile, SLOT_LEN, TopicHash, entry_at, slot_at,
};
use crate::checkpoint::Checkpoint;
use crate::disk::{Disk, RealDisk};
use crate::error::Error;
use crate::frozen::Frozen;
use crate::verify::{Kind, Report};
use crate::view::View;

/// The files that the next start keeps, and how far the walk is in them.
pub(crate) struct Audit {
    slot_count: u32,
    log_min: u64,
    files: Vec<IndexFile>,
    /// There were some, even if none is kept.
    has_files: bool,
    /// The file and the number of the entry that comes next.
    file: usize,
    number: u32,
    /// The newest entry of each slot so far, in this file.
    newest: Vec<u32>,
    /// Hashes under which the record is found that the walk is at.
    hashes: Vec<u32>,
    /// The slots of the last file may be newer than its entries; the next start sees to it.
    is_unclean: bool,
}

impl Audit {
    /// Opens what is there; `unclean` is the checkpoint after a stop that was not clean.
    pub fn open(view: &View, unclean: Option<&Checkpoint>, report: &mut Report) -> Option<Self> {
        let root = &view.settings.root;
        let counts = (view.settings.index_slot_count, view.settings.index_entry_count);
        let index = Index::open(Arc::clone(&view.disk), &view.settings, unclean)
            .inspect_err(|error| report.findings.add(Kind::IndexFiles, || error.to_string()))
            .ok()?;
        let files = std::mem::take(&mut *index.files.lock());
        let found = RealDisk.list(&root.join("index")).unwrap_or_default();
        let found = found.iter().filter(|it| !it.is_dir).count();
        if files.len() < found {
            let lost = found - files.len();
            report.findings.add_many(Kind::IndexRebuilt, lost as u64, || {
                format!("{lost} of {found}, the newest ones")
            });
        }
        report.index_file_count = files.len();
        let count = |file: &IndexFile| u64::from(file.header.next_entry - 1);
        report.index_entry_count = files.iter().map(count).sum();
        Some(Self {
            slot_count: counts.0,
            log_min: view.log_bounds().start,
            files,
            has_files: 0 < found,
            file: 0,
            number: 1,
            newest: vec![0; counts.0 as usize],
            hashes: Vec::new(),
            is_unclean: unclean.is_some(),
        })
    }

    /// Takes the entries up to the record's, and compares.
    pub fn record(&mut self, record: &Record<'_>, is_half: bool, report: &mut Report) {
        let before = (self.file, self.number);
        self.skip_to(record.at.0, report);
        let allowed = TopicHash::of(record.topic).keys(record.properties);
        self.hashes.clear();
        while let Some((hash, at, seconds)) = self.peek() {
            if at != record.at.0 {
                break;
            }
            let begin_ms = self.files[self.file].header.begin_ms;
            let wanted = ((record.stored_ms - begin_ms) / 1000).clamp(0, i64::from(i32::MAX));
            if !allowed.iter().any(|it| it == hash) || wanted != i64::from(seconds) {
                let number = self.number;
                report.findings.add(Kind::IndexEntry, || {
                    format!("entry {number} names {at}, which has other keys or another time")
                });
            }
            self.hashes.push(hash);
            self.take(report);
        }
        if is_half || allowed.iter().all(|hash| self.hashes.contains(&hash)) {
            return;
        }
        // Releases before 5.4 leave tags out.
        let tags = find(record.properties, name::TAGS).map(|it| format!("T#{it}"));
        let tags = tags.map(|tags| TopicHash::of(record.topic).key(&tags));
        let is_missing = |hash: u32| !self.hashes.contains(&hash) && Some(hash) != tags;
        if !allowed.iter().any(is_missing) {
            return;
        }
        let is_at_end = self.peek().is_none();
        let kind = match (self.has_files, is_at_end) {
            (false, _) => Kind::NoIndex,
            (_, true) if before == (self.file, self.number) => Kind::IndexBehind,
            _ => Kind::IndexMissing,
        };
        report.findings.add(kind, || {
            let Record { topic, queue_id, queue_offset, at, .. } = record;
            format!("{topic} {queue_id} {queue_offset}, at {at} in the log")
        });
    }

    /// The log has ended.
    pub fn finish(mut self, report: &mut Report) {
        self.skip_to(u64::MAX, report);
    }

    /// Takes entries of what lies below `at`: too old, or nothing.
    fn skip_to(&mut self, at: u64, report: &mut Report) {
        while let Some((_, named, _)) = self.peek() {
            if at <= named && !(at < named && self.is_next_at_most(at)) {
                break;
            }
            if self.log_min <= named {
                let number = self.number;
                report.findings.add(Kind::IndexEntry, || {
                    format!("entry {number} names {named}, where no message with a key starts")
                });
            }
            self.take(report);
        }
    }

    /// Whether the entry after the next is of a record up to `at`: then the next is out of order.
    fn is_next_at_most(&self, at: u64) -> bool {
        self.files.get(self.file).is_some_and(|file| {
            let after = self.number + 1;
            after < file.header.next_entry && file.entry(self.slot_count, after).at <= at
        })
    }

    /// Hash, log offset and seconds of the next entry.
    fn peek(&self) -> Option<(u32, u64, u32)> {
        let file = self.files.get(self.file)?;
        let entry = file.entry(self.slot_count, self.number);
        Some((entry.hash, entry.at, entry.seconds))
    }

    /// Checks the next entry's place in its chain, and goes on; at a file's end its slots as well.
    fn take(&mut self, report: &mut Report) {
        let file = &self.files[self.file];
        let entry = file.entry(self.slot_count, self.number);
        let newest = &mut self.newest[(entry.hash % self.slot_count) as usize];
        if entry.previous != *newest {
            let (number, path) = (self.number, &file.path);
            report.findings.add(Kind::IndexChain, || {
                format!("{path:?}: entry {number} leads to {}, not {newest}", entry.previous)
            });
        }
        *newest = self.number;
        self.number += 1;
        if file.header.next_entry <= self.number {
            self.check_slots(report);
            self.newest.fill(0);
            self.file += 1;
            self.number = 1;
        }
    }

    fn check_slots(&self, report: &mut Report) {
        let file = &self.files[self.file];
        let is_cut = self.is_unclean && self.file + 1 == self.files.len();
        for (slot, newest) in (0..).zip(&self.newest) {
            let named = file.slot(slot);
            let is_beyond = file.header.next_entry <= named;
            if named != *newest && !(is_cut && is_beyond) && !(*newest == 0 && is_beyond) {
                let path = &file.path;
                report.findings.add(Kind::IndexChain, || {
                    format!("{path:?}: slot {slot} leads to entry {named}, not {newest}")
                });
            }
        }
    }
}

/// Slots and entries of the files of `index/`, from their length and what is in the newest one that
/// has entries; `None` if there is none. Spec `store.md` 4.
pub(crate) fn sizes(root: &Path) -> Result<Option<(u32, u32)>, Error> {
    const DEFAULT: (u32, u32) = (5_000_000, 20_000_000);
    let dir = root.join("index");
    let entries = RealDisk.list(&dir).map_err(Error::io(&dir))?;
    for entry in entries.iter().filter(|it| !it.is_dir && HEADER_LEN < it.len) {
        let path = dir.join(&entry.name);
        if entry.len == entry_at(DEFAULT.0, DEFAULT.1) {
            return Ok(Some(DEFAULT));
        }
        let file = Frozen::new(&dir).open(&path, 0).map_err(Error::io(&path))?;
        if let Some(sizes) = guess(&*file) {
            return Ok(Some(sizes));
        }
    }
    Ok(None)
}

/// The numbers with which the last entry is where the header says, and its slot leads to it. With
/// fewer slots an entry before it may seem to be the last, as a record has several; with more slots
/// what comes after it does not.
fn guess(file: &dyn crate::disk::DiskFile) -> Option<(u32, u32)> {
    let bytes = file.slice(0, file.len() as usize);
    let header = Header::decode(bytes.first_chunk()?);
    let last = header.next_entry - 1;
    let int = |at: u64| {
        let at = at as usize;
        Some(u32::from_be_bytes(*bytes.get(at..at + 4)?.first_chunk()?))
    };
    let room = file.len() - HEADER_LEN;
    let is_right = |slot_count: &u32| {
        let at = entry_at(*slot_count, last);
        let high = int(at + 4).map(u64::from).unwrap_or_default() << 32;
        let named = high | int(at + 8).map(u64::from).unwrap_or_default();
        let slot = int(at).unwrap_or_default().checked_rem(*slot_count);
        named == header.end_at && slot.and_then(|slot| int(slot_at(slot))) == Some(last)
    };
    let slots =
        (1..=room / SLOT_LEN).filter(|count| (room - count * SLOT_LEN).is_multiple_of(ENTRY_LEN));
    let slot_count = slots.map(|count| count as u32).filter(|_| 0 < last).rfind(is_right)?;
    let entry_count = (room - u64::from(slot_count) * SLOT_LEN) / ENTRY_LEN;
    Some((slot_count, entry_count as u32))
}

#[cfg(test)]
mod tests {
    use apogee_types::LogOffset;

    use super::*;
    use crate::store::Settings;

    #[test]
    fn the_sizes_of_index_files_are_found_whatever_is_in_them() {
        const SIZES: (u32, u32) = (100, 400);
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings {
            index_slot_count: SIZES.0,
            index_entry_count: SIZES.1,
            ..Settings::at(dir.path())
        };
        let index = Index::open(Arc::new(RealDisk), &settings, None).unwrap();
        for number in 0..300 {
            let properties = format!("UNIQ_KEY\x01u{number}\x02KEYS\x01k{number} all\x02");
            let hashes = TopicHash::of("t").keys(properties.as_bytes());
            index.put(&hashes, LogOffset(231 * number), 1_700_000_000_000).unwrap();
            index.settle().unwrap();
            assert_eq!(sizes(dir.path()).unwrap(), Some(SIZES), "{number}");
        }
    }
}
