//! Messages by key and time. Spec `store.md` 4.
//!
//! ```text
//!  header 40 | slots: entry number 4 each | entries: hash 4, log offset 8, seconds 4, previous 4
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;

use apogee_types::{LogOffset, Millis, tags};
use parking_lot::Mutex;

use crate::disk::{Disk, DiskFile};
use crate::error::Error;

const HEADER_LEN: u64 = 40;
const SLOT_LEN: u64 = 4;
const ENTRY_LEN: u64 = 20;

/// The start of a topic's key hashes, which continue with the key. A queue keeps it.
#[derive(Debug, Clone, Copy)]
pub struct TopicHash(i32);

impl TopicHash {
    #[must_use]
    pub fn of(topic: &str) -> Self {
        Self(tags::java_hash_continue(tags::java_hash(topic), "#"))
    }

    /// The hash under which a key of the topic is kept.
    #[must_use]
    pub fn key(self, key: &str) -> u32 {
        abs(tags::java_hash_continue(self.0, key))
    }

    /// The hashes under which a record is found: those of its unique key, of each word of `KEYS`,
    /// and of its tags as `T#tags` (`since-5.3.md` 5.3).
    #[must_use]
    pub fn keys(self, properties: &[u8]) -> KeyHashes {
        use apogee_types::properties::{name, raw_pairs};
        let mut hashes = KeyHashes::default();
        for (key, value) in raw_pairs(properties) {
            let is_key = [name::UNIQ_KEY, name::KEYS, name::TAGS].map(str::as_bytes).contains(&key);
            let Some(value) = is_key.then(|| std::str::from_utf8(value).ok()).flatten() else {
                continue;
            };
            match key[0] {
                b'U' => hashes.push(self.key(value)),
                b'K' => value
                    .split(' ')
                    .filter(|word| !word.is_empty())
                    .for_each(|word| hashes.push(self.key(word))),
                _ => {
                    let start = tags::java_hash_continue(self.0, "T#");
                    hashes.push(abs(tags::java_hash_continue(start, value)));
                }
            }
        }
        hashes
    }
}

/// Java's `Math.abs` leaves the smallest number negative; upstream takes 0 then.
fn abs(hash: i32) -> u32 {
    hash.checked_abs().unwrap_or(0) as u32
}

/// Hashes of the keys of one record. Few need no allocation.
#[derive(Debug, Default, Clone)]
pub struct KeyHashes {
    first: [u32; 3],
    /// How many of `first` count.
    count: usize,
    more: Vec<u32>,
}

impl KeyHashes {
    fn push(&mut self, hash: u32) {
        match self.first.get_mut(self.count) {
            Some(place) => {
                *place = hash;
                self.count += 1;
            }
            None => self.more.push(hash),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.first[..self.count].iter().chain(&self.more).copied()
    }
}

/// The index files, oldest first. Appended to by dispatch only.
pub struct Index {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    slot_count: u32,
    entry_count_max: u32,
    files: Mutex<Vec<IndexFile>>,
}

struct IndexFile {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    header: Header,
}

#[derive(Debug, Default, Clone, Copy)]
struct Header {
    begin_ms: Millis,
    end_ms: Millis,
    begin_at: u64,
    end_at: u64,
    used_slots: u32,
    /// Number of the next entry; they count from 1.
    next_entry: u32,
}

impl Header {
    fn decode(bytes: &[u8; HEADER_LEN as usize]) -> Self {
        let long =
            |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let int = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        Self {
            begin_ms: long(0) as i64,
            end_ms: long(8) as i64,
            begin_at: long(16),
            end_at: long(24),
            used_slots: int(32),
            next_entry: int(36).max(1),
        }
    }

    fn encode(&self) -> [u8; HEADER_LEN as usize] {
        let mut bytes = [0; HEADER_LEN as usize];
        bytes[..8].copy_from_slice(&self.begin_ms.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.end_ms.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.begin_at.to_be_bytes());
        bytes[24..32].copy_from_slice(&self.end_at.to_be_bytes());
        bytes[32..36].copy_from_slice(&self.used_slots.to_be_bytes());
        bytes[36..].copy_from_slice(&self.next_entry.to_be_bytes());
        bytes
    }
}

impl Index {
    /// Opens the files of `index/`. After an unclean stop those that may lack entries (newer than
    /// the checkpoint says) are removed, to be built again.
    pub fn open(
        disk: Arc<dyn Disk>,
        root: &Path,
        slot_count: u32,
        entry_count_max: u32,
        trusted_until: Option<Millis>,
    ) -> Result<Self, Error> {
        let dir = root.join("index");
        let index = Self { disk, dir, slot_count, entry_count_max, files: Mutex::default() };
        for entry in index.disk.list(&index.dir).map_err(Error::io(&index.dir))? {
            let path = index.dir.join(&entry.name);
            if entry.len != index.file_len() {
                let (found, expected) = (entry.len, index.file_len());
                let setting = "maxHashSlotNum or maxIndexNum";
                return Err(Error::WrongLength { path, found, expected, setting });
            }
            let file = index.open_file(path)?;
            if trusted_until.is_some_and(|until| until < file.header.end_ms) {
                index.disk.remove(&file.path).map_err(Error::io(&file.path))?;
            } else {
                index.files.lock().push(file);
            }
        }
        Ok(index)
    }

    /// Records up to there are in the index.
    #[must_use]
    pub fn end_at(&self) -> Option<LogOffset> {
        self.files.lock().last().map(|file| LogOffset(file.header.end_at))
    }

    /// Adds a key of the record at `at`.
    pub fn put(&self, hash: u32, at: LogOffset, stored_ms: Millis) -> Result<(), Error> {
        let mut files = self.files.lock();
        let is_full = files.last().is_none_or(|it| self.entry_count_max <= it.header.next_entry);
        if is_full {
            let before = files.last().map(|it| it.header);
            files.push(self.create(stored_ms, before)?);
        }
        let file = files.last_mut().expect("one was just made");
        file.put(hash, at, stored_ms, self.slot_count);
        Ok(())
    }

    /// Places of records whose key hashes to `hash`, newest first.
    #[must_use]
    pub fn query(&self, hash: u32, max: usize, from_ms: Millis, to_ms: Millis) -> Vec<LogOffset> {
        let files = self.files.lock();
        let mut found = Vec::new();
        for file in files.iter().rev() {
            if found.len() < max && file.header.begin_ms <= to_ms && from_ms <= file.header.end_ms {
                file.query(hash, max, (from_ms, to_ms), self.slot_count, &mut found);
            }
            if max <= found.len() || file.header.begin_ms < from_ms {
                break;
            }
        }
        found
    }

    /// Brings everything to the device.
    pub fn flush(&self) -> Result<(), Error> {
        let files: Vec<_> = {
            let files = self.files.lock();
            files.iter().map(|it| (it.path.clone(), Arc::clone(&it.file))).collect()
        };
        for (path, file) in files {
            file.sync(0, file.len()).map_err(Error::io(path))?;
        }
        Ok(())
    }

    /// Removes the files that hold nothing at or above `log_min`; never the last.
    pub fn clean(&self, log_min: LogOffset) -> Result<(), Error> {
        loop {
            let path = {
                let mut files = self.files.lock();
                if files.len() < 2 || log_min.0 <= files[0].header.end_at {
                    return Ok(());
                }
                files.remove(0).path
            };
            self.disk.remove(&path).map_err(Error::io(&path))?;
        }
    }

    fn file_len(&self) -> u64 {
        HEADER_LEN
            + u64::from(self.slot_count) * SLOT_LEN
            + u64::from(self.entry_count_max) * ENTRY_LEN
    }

    fn create(&self, now: Millis, before: Option<Header>) -> Result<IndexFile, Error> {
        let mut file = self.open_file(self.dir.join(digits(now)))?;
        if let Some(before) = before {
            file.header.begin_at = before.end_at;
            file.header.end_at = before.end_at;
            file.header.begin_ms = before.end_ms;
            file.header.end_ms = before.end_ms;
        }
        Ok(file)
    }

    fn open_file(&self, path: PathBuf) -> Result<IndexFile, Error> {
        let file = self.disk.open(&path, self.file_len()).map_err(Error::io(&path))?;
        let mut bytes = [0; HEADER_LEN as usize];
        file.read_at(0, &mut bytes);
        Ok(IndexFile { path, file, header: Header::decode(&bytes) })
    }
}

impl IndexFile {
    fn put(&mut self, hash: u32, at: LogOffset, stored_ms: Millis, slot_count: u32) {
        let header = &mut self.header;
        if header.next_entry <= 1 {
            header.begin_at = at.0;
            header.begin_ms = stored_ms;
        }
        let slot_at = HEADER_LEN + u64::from(hash % slot_count) * SLOT_LEN;
        let mut slot = [0; 4];
        self.file.read_at(slot_at, &mut slot);
        let previous = match u32::from_be_bytes(slot) {
            entry if header.next_entry < entry => 0,
            entry => entry,
        };
        let seconds = ((stored_ms - header.begin_ms) / 1000).clamp(0, i64::from(i32::MAX));
        let mut entry = [0; ENTRY_LEN as usize];
        entry[..4].copy_from_slice(&hash.to_be_bytes());
        entry[4..12].copy_from_slice(&at.0.to_be_bytes());
        entry[12..16].copy_from_slice(&(seconds as u32).to_be_bytes());
        entry[16..].copy_from_slice(&previous.to_be_bytes());
        self.file.write_at(entry_at(slot_count, header.next_entry), &entry);
        self.file.write_at(slot_at, &header.next_entry.to_be_bytes());
        header.used_slots += u32::from(previous == 0);
        header.next_entry += 1;
        header.end_at = at.0;
        header.end_ms = stored_ms;
        self.file.write_at(0, &header.encode());
    }

    fn query(
        &self,
        hash: u32,
        max: usize,
        (from_ms, to_ms): (Millis, Millis),
        slot_count: u32,
        found: &mut Vec<LogOffset>,
    ) {
        let mut slot = [0; 4];
        self.file.read_at(HEADER_LEN + u64::from(hash % slot_count) * SLOT_LEN, &mut slot);
        let mut number = u32::from_be_bytes(slot);
        while 0 < number && number < self.header.next_entry && found.len() < max {
            let mut entry = [0; ENTRY_LEN as usize];
            self.file.read_at(entry_at(slot_count, number), &mut entry);
            let int =
                |at: usize| u32::from_be_bytes(entry[at..at + 4].try_into().expect("four bytes"));
            let at = u64::from_be_bytes(entry[4..12].try_into().expect("eight bytes"));
            // Seconds are rounded down: the time lies within the second that follows.
            let stored_ms = self.header.begin_ms + i64::from(int(12)) * 1000;
            if stored_ms + 999 < from_ms {
                break;
            }
            if int(0) == hash && stored_ms <= to_ms {
                found.push(LogOffset(at));
            }
            let previous = int(16);
            if number <= previous {
                break;
            }
            number = previous;
        }
    }
}

fn entry_at(slot_count: u32, number: u32) -> u64 {
    HEADER_LEN + u64::from(slot_count) * SLOT_LEN + u64::from(number) * ENTRY_LEN
}

/// `yyyyMMddHHmmssSSS` in UTC: a file's name, which upstream reads as a number.
fn digits(ms: Millis) -> String {
    let (days, in_day) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000));
    // Civil date from days since 1970; Howard Hinnant's algorithm.
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute) = (in_day / 3_600_000, in_day / 60_000 % 60);
    let (second, milli) = (in_day / 1000 % 60, in_day % 1000);
    format!("{year:04}{month:02}{day:02}{hour:02}{minute:02}{second:02}{milli:03}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_are_dates() {
        assert_eq!(digits(0), "19700101000000000");
        assert_eq!(digits(1_709_210_096_789), "20240229123456789");
    }

    #[test]
    fn keys_hash_as_upstream_joins_them() {
        let hash = |text: &str| tags::java_hash(text).unsigned_abs();
        assert_eq!(TopicHash::of("t").key("k"), hash("t#k"));
        let properties = b"KEYS\x01a  b c\x02UNIQ_KEY\x01u\x02K\x01v\x02TAGS\x01x\x02";
        let hashes: Vec<u32> = TopicHash::of("t").keys(properties).iter().collect();
        assert_eq!(hashes, ["t#a", "t#b", "t#c", "t#u", "t#T#x"].map(hash));
    }
}
