//! Messages by key and time. Spec `store.md` 4.
//!
//! ```text
//!  header 40 | slots: entry number 4 each | entries: hash 4, log offset 8, seconds 4, previous 4
//! ```
//!
//! A slot names the newest entry of its chain. A crash may leave slots and header newer than the
//! entries, so after one a file is set back to what the checkpoint says that the device has.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use apogee_types::properties::KeyPlaces;
use apogee_types::{LogOffset, Millis, tags};
use parking_lot::Mutex;

use crate::checkpoint::{Checkpoint, IndexMark};
use crate::disk::{Disk, DiskFile};
use crate::error::Error;
use crate::store::Settings;

pub(crate) mod audit;

const HEADER_LEN: u64 = 40;
const SLOT_LEN: u64 = 4;
const ENTRY_LEN: u64 = 20;
/// How much space is taken from the disk at once for entries.
const ALLOCATED_LEN: u64 = 256 * 1024;

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

    /// [`keys_at`](Self::keys_at) where it is not known where they stand.
    #[must_use]
    pub fn keys(self, properties: &[u8]) -> KeyHashes {
        self.keys_at(properties, &KeyPlaces::find(properties))
    }

    /// The hashes under which a record is found: those of its unique key, of each word of `KEYS`,
    /// and of its tags as `T#tags` (`since-5.3.md` 5.3).
    #[must_use]
    pub fn keys_at(self, properties: &[u8], places: &KeyPlaces) -> KeyHashes {
        let mut hashes = KeyHashes::default();
        let mut put = |start: i32, value: &[u8]| {
            // What is not UTF-8 no client can ask for.
            tags::java_hash_bytes(start, value).into_iter().for_each(|hash| hashes.push(abs(hash)));
        };
        if let Some(value) = places.unique_key.of(properties) {
            put(self.0, value);
        }
        if let Some(value) = places.keys.of(properties) {
            let words = value.split(|&byte| byte == b' ').filter(|word| !word.is_empty());
            words.for_each(|word| put(self.0, word));
        }
        if let Some(value) = places.tags.of(properties) {
            put(tags::java_hash_continue(self.0, "T#"), value);
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

/// Records whose keys wait at most; then who puts more waits.
const WAITING_MAX: usize = 64 * 1024;

/// The index files, oldest first, and what is to be added to them. Changes lie scattered over the
/// newest file, so each may have to wait for memory or the file system: dispatch only notes keys,
/// and [`settle`](Index::settle) adds them. Put to by dispatch only.
pub struct Index {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    slot_count: u32,
    entry_count_max: u32,
    /// See [`Settings::local_time`].
    local_time: fn(Millis) -> Millis,
    /// Taken before `waiting`.
    files: Mutex<Vec<IndexFile>>,
    /// In the order of the log, behind all that is in the files.
    waiting: Mutex<Vec<Keys>>,
    /// The disk did not take the keys the last time.
    is_stuck: AtomicBool,
}

/// The keys of a record.
#[derive(Debug, Clone)]
struct Keys {
    hashes: KeyHashes,
    at: LogOffset,
    stored_ms: Millis,
}

struct IndexFile {
    path: PathBuf,
    /// The name, by which files are ordered.
    number: u64,
    file: Arc<dyn DiskFile>,
    header: Header,
    /// Entries below are on the device.
    synced: u32,
    /// The bytes below have space on the disk, as far as this process has seen to it.
    allocated: u64,
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
    /// Opens the files of `index/`. One that is damaged is removed with all that follow, to be
    /// built again. After an unclean stop so is what the checkpoint does not vouch for.
    pub fn open(
        disk: Arc<dyn Disk>,
        settings: &Settings,
        unclean: Option<&Checkpoint>,
    ) -> Result<Self, Error> {
        let index = Self {
            disk,
            dir: settings.root.join("index"),
            slot_count: settings.index_slot_count,
            entry_count_max: settings.index_entry_count,
            local_time: settings.local_time,
            files: Mutex::default(),
            waiting: Mutex::default(),
            is_stuck: AtomicBool::new(false),
        };
        let entries = index.disk.list(&index.dir).map_err(Error::io(&index.dir))?;
        // Else the settings are wrong.
        let has_right_length = entries.iter().any(|it| !it.is_dir && it.len == index.file_len());
        let mut is_damaged = false;
        for entry in entries.into_iter().filter(|it| !it.is_dir) {
            let path = index.dir.join(&entry.name);
            let what = "is no index file: its name is not a time in digits";
            let number: u64 =
                entry.name.parse().map_err(|_| Error::Foreign { path: path.clone(), what })?;
            let mut file = None;
            if entry.len == index.file_len() {
                file = Some(index.open_file(path.clone(), number)?);
            } else if entry.len != 0 && !has_right_length {
                let (found, expected) = (entry.len, index.file_len());
                let setting = "maxHashSlotNum or maxIndexNum";
                return Err(Error::WrongLength { path, found, expected, setting });
            }
            // Those that follow go too: what is built again has to be in the order of the log.
            file = file.filter(|it| !is_damaged && index.is_sound(it, unclean.is_none()));
            is_damaged |= file.is_none();
            match file {
                Some(file) => index.files.lock().push(file),
                None => {
                    tracing::error!(?path, "an index file is damaged, or one before it: removed");
                    index.disk.remove(&path).map_err(Error::io(&path))?;
                }
            }
        }
        // Names are local times, which an hour, or another time zone, may have set back.
        index.files.lock().sort_by_key(|it| (it.header.end_at, it.number));
        match unclean {
            Some(known) if known.index.end == LogOffset(0) => index.keep_until(known.index_ms)?,
            Some(known) => index.keep_marked(&known.index)?,
            None => {}
        }
        Ok(index)
    }

    /// The keys of all records below are in the index, as far as it and the checkpoint can tell.
    #[must_use]
    pub fn end(&self, mark: &IndexMark) -> LogOffset {
        let files = self.files.lock();
        let newest = files.last().map(|it| LogOffset(it.header.end_at));
        // Records without keys leave no entry: only the mark tells that they were looked at.
        let is_whole = mark.file == 0 || files.iter().any(|it| it.holds(mark));
        match newest {
            Some(newest) if is_whole => newest.plus(1).max(mark.end),
            None if is_whole => mark.end,
            // Some of the newest record's keys may stand in a file that is gone.
            newest => newest.unwrap_or_default(),
        }
    }

    /// The names of the files as numbers, oldest first, and where their last entries lead.
    pub(crate) fn names(&self) -> Vec<(u64, LogOffset)> {
        let name = |it: &IndexFile| (it.number, LogOffset(it.header.end_at));
        self.files.lock().iter().map(name).collect()
    }

    /// After a clean stop: removes what lies behind a hole, to be built again. The mark says what
    /// there was once; `had` are the [`names`](Self::names) at the stop, if they are known. What
    /// lies below `log_min` is not missed.
    pub(crate) fn cut_at_hole(
        &self,
        mark: &IndexMark,
        log_min: LogOffset,
        had: impl Iterator<Item = (u64, LogOffset)>,
    ) -> Result<(), Error> {
        let (keep, count) = {
            let files = self.files.lock();
            let is_missing = |number: u64| files.iter().all(|it| it.number != number);
            let mut had = had.filter(|(_, end_at)| log_min <= *end_at);
            let lost = had.find(|(number, _)| is_missing(*number));
            // Apache deletes files after an unclean stop, and builds less than it has deleted.
            let is_missed = mark.file != 0 && log_min < mark.end;
            let is_unmarked = is_missed && !files.iter().any(|it| it.holds(mark));
            let is_before = |it: &&IndexFile| {
                lost.is_none_or(|(_, end_at)| it.header.end_at < end_at.0)
                    && !(is_unmarked && mark.file <= it.number)
            };
            (files.iter().take_while(is_before).count(), files.len())
        };
        if keep < count {
            let files = count - keep;
            tracing::error!(files, "the index lacks a file: those behind it are built again");
        }
        self.remove_from(keep)
    }

    /// Takes back what was said of records at or above `log_end`, which are lost.
    pub(crate) fn truncate(&self, log_end: LogOffset) -> Result<(), Error> {
        let mut files = self.files.lock();
        while let Some(file) = files.last_mut().filter(|it| log_end.0 <= it.header.end_at) {
            let is_lost = |number: &u32| log_end.0 <= file.entry(self.slot_count, *number).at;
            let lost = (1..file.header.next_entry).rev().take_while(is_lost).count();
            let next_entry = file.header.next_entry - lost as u32;
            if 1 < next_entry {
                file.cut(next_entry, self.slot_count);
                return Ok(());
            }
            self.disk.remove(&file.path).map_err(Error::io(&file.path))?;
            files.pop();
        }
        Ok(())
    }

    /// Notes the keys of the record at `at`; [`settle`](Self::settle) adds them.
    pub fn put(&self, hashes: &KeyHashes, at: LogOffset, stored_ms: Millis) -> Result<(), Error> {
        if hashes.count == 0 {
            return Ok(());
        }
        let mut waiting = self.waiting.lock();
        if WAITING_MAX <= waiting.len() {
            drop(waiting);
            self.settle()?;
            waiting = self.waiting.lock();
        }
        waiting.push(Keys { hashes: hashes.clone(), at, stored_ms });
        Ok(())
    }

    /// Adds the keys that were noted. If the disk does not take them they go on waiting.
    pub fn settle(&self) -> Result<(), Error> {
        let mut files = self.files.lock();
        let mut batch = {
            let mut waiting = self.waiting.lock();
            let room = Vec::with_capacity(waiting.len());
            std::mem::replace(&mut *waiting, room)
        };
        for (done, keys) in batch.iter().enumerate() {
            if let Err(error) = self.add(&mut files, keys) {
                self.waiting.lock().splice(0..0, batch.drain(done..));
                if !self.is_stuck.swap(true, Ordering::Relaxed) {
                    tracing::error!(%error, "keys wait for the index until it takes them");
                }
                return Err(error);
            }
        }
        if !batch.is_empty() && self.is_stuck.swap(false, Ordering::Relaxed) {
            tracing::info!("the index takes keys again");
        }
        Ok(())
    }

    /// Adds the keys of a record; those that an earlier try has added stay.
    fn add(&self, files: &mut Vec<IndexFile>, keys: &Keys) -> Result<(), Error> {
        let Keys { hashes, at, stored_ms } = keys;
        let (at, stored_ms) = (*at, *stored_ms);
        let is_newest = files.last().is_some_and(|it| it.header.end_at == at.0);
        let there = if is_newest { self.count_of(files, at) } else { 0 };
        for hash in hashes.iter().skip(there) {
            let is_full =
                files.last().is_none_or(|it| self.entry_count_max <= it.header.next_entry);
            if is_full {
                files.push(self.create(stored_ms, files)?);
            }
            let file = files.last_mut().expect("one was just made");
            file.allocate(self.slot_count).map_err(Error::io(&file.path))?;
            file.put(hash, at, stored_ms, self.slot_count);
        }
        Ok(())
    }

    /// How many keys of the newest record are there, if that is the one at `at`.
    fn count_of(&self, files: &[IndexFile], at: LogOffset) -> usize {
        let entry = |file: &IndexFile, number| file.entry(self.slot_count, number).at;
        let newest_first = files.iter().rev().flat_map(|file| {
            (1..file.header.next_entry).rev().map(move |number| entry(file, number))
        });
        newest_first.take_while(|it| *it == at.0).count()
    }

    /// When the newest record was stored whose keys are there.
    pub(crate) fn end_ms(&self) -> Millis {
        self.files.lock().last().map_or(0, |it| it.header.end_ms)
    }

    #[must_use]
    pub fn file_count(&self) -> usize {
        self.files.lock().len()
    }

    /// Places of records whose key hashes to `hash`, newest first.
    #[must_use]
    pub fn query(
        &self,
        hash: u32,
        max: usize,
        (from_ms, to_ms): (Millis, Millis),
    ) -> Vec<LogOffset> {
        let is_it = |it: &&Keys| {
            from_ms <= it.stored_ms
                && it.stored_ms <= to_ms
                && it.hashes.iter().any(|it| it == hash)
        };
        let (mut found, chains) = {
            let files = self.files.lock();
            let waiting = self.waiting.lock();
            let newest_first = waiting.iter().rev().filter(is_it).map(|it| it.at);
            let found: Vec<_> = newest_first.take(max).collect();
            drop(waiting);
            (found, self.chains(&files, hash, (from_ms, to_ms)))
        };
        // Without the lock: a chain may lead through pages that the device has to be asked for.
        for chain in chains {
            chain.query(hash, max, (from_ms, to_ms), &mut found);
        }
        // Of the first record that waits some keys may be there.
        found.dedup();
        found
    }

    /// Where to look for a hash, newest first. What a chain leads to now never changes.
    fn chains(
        &self,
        files: &[IndexFile],
        hash: u32,
        (from_ms, to_ms): (Millis, Millis),
    ) -> Vec<Chain> {
        let mut chains = Vec::new();
        for it in files.iter().rev() {
            if it.header.begin_ms <= to_ms && from_ms <= it.header.end_ms {
                chains.push(it.chain(hash, self.slot_count));
            }
            if it.header.begin_ms < from_ms {
                break;
            }
        }
        chains
    }

    /// What the index holds now: all keys of the records below `end`. The caller sees to it that
    /// all are settled and none is being put.
    pub(crate) fn mark(&self, end: LogOffset) -> (IndexMark, Millis) {
        let files = self.files.lock();
        let newest = files.last();
        let file = newest.map_or(0, |it| it.number);
        let next_entry = newest.map_or(0, |it| u64::from(it.header.next_entry));
        (IndexMark { end, file, next_entry }, newest.map_or(0, |it| it.header.end_ms))
    }

    /// Brings what was added since the last time to the device.
    pub fn flush(&self) -> Result<(), Error> {
        let dirty: Vec<_> = {
            let files = self.files.lock();
            let dirty = files.iter().filter(|it| it.synced < it.header.next_entry);
            dirty.map(|it| (it.number, it.path.clone(), Arc::clone(&it.file), it.range())).collect()
        };
        for (number, path, file, (from, to)) in dirty {
            // Slots are hashed, so any of them may have changed; entries only follow.
            let (slots, from_at) = (entry_at(self.slot_count, 0), entry_at(self.slot_count, from));
            file.sync(0, slots).map_err(Error::io(&path))?;
            file.sync(from_at, entry_at(self.slot_count, to)).map_err(Error::io(&path))?;
            let mut files = self.files.lock();
            if let Some(it) = files.iter_mut().find(|it| it.number == number) {
                it.synced = to;
            }
        }
        Ok(())
    }

    /// Removes the files that hold nothing at or above `log_min`; never the last.
    pub fn clean(&self, log_min: LogOffset) -> Result<(), Error> {
        loop {
            let path = match &self.files.lock()[..] {
                [first, _, ..] if first.header.end_at < log_min.0 => first.path.clone(),
                _ => return Ok(()),
            };
            self.disk.remove(&path).map_err(Error::io(&path))?;
            self.files.lock().remove(0);
        }
    }

    fn file_len(&self) -> u64 {
        HEADER_LEN
            + u64::from(self.slot_count) * SLOT_LEN
            + u64::from(self.entry_count_max) * ENTRY_LEN
    }

    /// After an unclean stop of Apache's, or of a store that never noted more: files that are
    /// newer than the checkpoint may lack entries.
    fn keep_until(&self, ms: Millis) -> Result<(), Error> {
        let keep = self.files.lock().iter().take_while(|it| it.header.end_ms <= ms).count();
        self.remove_from(keep)
    }

    fn keep_marked(&self, mark: &IndexMark) -> Result<(), Error> {
        let keep = {
            let files = self.files.lock();
            let marked = files.iter().position(|it| it.number == mark.file);
            let before = || files.iter().take_while(|it| it.number < mark.file).count();
            marked.map_or_else(before, |marked| marked + 1)
        };
        self.remove_from(keep)?;
        let mut files = self.files.lock();
        match files.last_mut() {
            // Also if the header says no more than the mark: slots may be newer than it.
            Some(file) if file.holds(mark) => {
                file.cut(mark.next_entry as u32, self.slot_count);
                Ok(())
            }
            // The file has fewer entries than it had, or the one that was meant is gone. Those
            // before it were full and on the device when it was noted.
            Some(file) if file.number == mark.file => {
                let keep = files.len() - 1;
                drop(files);
                self.remove_from(keep)
            }
            _ => Ok(()),
        }
    }

    fn remove_from(&self, keep: usize) -> Result<(), Error> {
        for file in self.files.lock().drain(keep..) {
            self.disk.remove(&file.path).map_err(Error::io(&file.path))?;
        }
        Ok(())
    }

    /// What must hold for entries to be found where the header says. After an unclean stop the
    /// newest ones may be missing.
    fn is_sound(&self, file: &IndexFile, was_clean: bool) -> bool {
        let it = &file.header;
        let last = it.next_entry - 1;
        0 < last
            && it.next_entry <= self.entry_count_max
            && it.used_slots <= last
            && 0 <= it.begin_ms
            && it.begin_ms <= it.end_ms
            && it.begin_at <= it.end_at
            && (!was_clean || file.entry(self.slot_count, last).at == it.end_at)
    }

    fn create(&self, now: Millis, before: &[IndexFile]) -> Result<IndexFile, Error> {
        // Later than all others in name as well, whatever clock and time zone made those.
        let after = before.iter().map(|it| it.number + 1).max().unwrap_or_default();
        let number = digits((self.local_time)(now)).parse().unwrap_or(0).max(after);
        let mut file = self.open_file(self.dir.join(format!("{number:017}")), number)?;
        if let Some(IndexFile { header: before, .. }) = before.last() {
            file.header.begin_at = before.end_at;
            file.header.end_at = before.end_at;
            file.header.begin_ms = before.end_ms;
            file.header.end_ms = before.end_ms;
        }
        Ok(file)
    }

    fn open_file(&self, path: PathBuf, number: u64) -> Result<IndexFile, Error> {
        let file = self.disk.open(&path, self.file_len()).map_err(Error::io(&path))?;
        file.expect_scattered().map_err(Error::io(&path))?;
        let mut bytes = [0; HEADER_LEN as usize];
        file.read_at(0, &mut bytes);
        let header = Header::decode(&bytes);
        // Of an old file only what the device is known to have will be kept.
        Ok(IndexFile { path, number, file, header, synced: header.next_entry, allocated: 0 })
    }
}

/// One key of one record.
struct KeyEntry {
    hash: u32,
    at: u64,
    /// Seconds since the first entry of the file.
    seconds: u32,
    /// The entry before it in the chain; 0 for none.
    previous: u32,
}

impl KeyEntry {
    fn read(file: &dyn DiskFile, slot_count: u32, number: u32) -> Self {
        let mut bytes = [0; ENTRY_LEN as usize];
        file.read_at(entry_at(slot_count, number), &mut bytes);
        let int = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let at = u64::from_be_bytes(bytes[4..12].try_into().expect("eight bytes"));
        Self { hash: int(0), at, seconds: int(12), previous: int(16) }
    }
}

impl IndexFile {
    /// Has what the mark says, and maybe more.
    fn holds(&self, mark: &IndexMark) -> bool {
        let has_entries = 1 < mark.next_entry;
        let has_them_all = mark.next_entry <= u64::from(self.header.next_entry);
        self.number == mark.file && has_entries && has_them_all
    }

    /// The entries that are not on the device.
    fn range(&self) -> (u32, u32) {
        (self.synced, self.header.next_entry)
    }

    fn entry(&self, slot_count: u32, number: u32) -> KeyEntry {
        KeyEntry::read(&*self.file, slot_count, number)
    }

    /// Forgets the entries from `next_entry` on: sets each slot that names one of them to the
    /// newest of its chain that stays, then the header.
    ///
    /// The entries that stay are looked for from their own side, since the chain leads through
    /// entries that may never have reached the device.
    fn cut(&mut self, next_entry: u32, slot_count: u32) {
        let int = |at: &[u8]| u32::from_be_bytes(at[..4].try_into().expect("four bytes"));
        let slots = self.file.slice(slot_at(0), (entry_at(slot_count, 0) - slot_at(0)) as usize);
        let mut slots: Vec<u32> = slots.chunks_exact(SLOT_LEN as usize).map(int).collect();
        let is_cut: Vec<bool> = slots.iter().map(|named| next_entry <= *named).collect();
        if is_cut.contains(&true) {
            let (from, to) = (entry_at(slot_count, 1), entry_at(slot_count, next_entry));
            let entries = self.file.slice(from, (to - from) as usize);
            for slot in (0..slots.len()).filter(|slot| is_cut[*slot]) {
                slots[slot] = 0;
            }
            for (number, entry) in (1..).zip(entries.chunks_exact(ENTRY_LEN as usize)) {
                let slot = (int(entry) % slot_count) as usize;
                if is_cut[slot] {
                    slots[slot] = number;
                }
            }
            for slot in (0..slots.len()).filter(|slot| is_cut[*slot]) {
                self.file.write_at(slot_at(slot as u32), &slots[slot].to_be_bytes());
            }
        }
        let used_slots = slots.iter().filter(|named| **named != 0).count() as u32;
        let last = self.entry(slot_count, next_entry - 1);
        let header = &mut self.header;
        header.used_slots = used_slots;
        header.next_entry = next_entry;
        header.end_at = last.at;
        // The entry tells its second only.
        let second_end = header.begin_ms + i64::from(last.seconds) * 1000 + 999;
        header.end_ms = header.end_ms.min(second_end);
        self.file.write_at(0, &header.encode());
        self.synced = 1;
    }

    fn slot(&self, slot: u32) -> u32 {
        let mut bytes = [0; SLOT_LEN as usize];
        self.file.read_at(slot_at(slot), &mut bytes);
        u32::from_be_bytes(bytes)
    }

    /// Sees to it that the next entry and every slot have space on the disk.
    fn allocate(&mut self, slot_count: u32) -> io::Result<()> {
        let need = entry_at(slot_count, self.header.next_entry + 1);
        if self.allocated < need {
            let to = (need + ALLOCATED_LEN).min(self.file.len());
            self.file.allocate(self.allocated, to)?;
            self.allocated = to;
        }
        Ok(())
    }

    fn put(&mut self, hash: u32, at: LogOffset, stored_ms: Millis, slot_count: u32) {
        let header = &mut self.header;
        if header.next_entry <= 1 {
            header.begin_at = at.0;
            header.begin_ms = stored_ms;
        }
        let slot = hash % slot_count;
        let mut named = [0; SLOT_LEN as usize];
        self.file.read_at(slot_at(slot), &mut named);
        let named = u32::from_be_bytes(named);
        let previous = if named < header.next_entry { named } else { 0 };
        let seconds = ((stored_ms - header.begin_ms) / 1000).clamp(0, i64::from(i32::MAX));
        let mut entry = [0; ENTRY_LEN as usize];
        entry[..4].copy_from_slice(&hash.to_be_bytes());
        entry[4..12].copy_from_slice(&at.0.to_be_bytes());
        entry[12..16].copy_from_slice(&(seconds as u32).to_be_bytes());
        entry[16..].copy_from_slice(&previous.to_be_bytes());
        self.file.write_at(entry_at(slot_count, header.next_entry), &entry);
        self.file.write_at(slot_at(slot), &header.next_entry.to_be_bytes());
        header.used_slots += u32::from(previous == 0);
        header.next_entry += 1;
        header.end_at = at.0;
        header.end_ms = stored_ms;
        self.file.write_at(0, &header.encode());
    }

    /// Where entries with the hash are to be found.
    fn chain(&self, hash: u32, slot_count: u32) -> Chain {
        let named = self.slot(hash % slot_count);
        let newest = if named < self.header.next_entry { named } else { 0 };
        let (file, begin_ms) = (Arc::clone(&self.file), self.header.begin_ms);
        Chain { file, begin_ms, newest, slot_count }
    }
}

/// The entries of one slot.
struct Chain {
    file: Arc<dyn DiskFile>,
    begin_ms: Millis,
    /// 0 if there is none.
    newest: u32,
    slot_count: u32,
}

impl Chain {
    fn query(
        &self,
        hash: u32,
        max: usize,
        (from_ms, to_ms): (Millis, Millis),
        found: &mut Vec<LogOffset>,
    ) {
        let mut number = self.newest;
        while 0 < number && found.len() < max {
            let entry = KeyEntry::read(&*self.file, self.slot_count, number);
            // Seconds are rounded down: the time lies within the second that follows.
            let stored_ms = self.begin_ms + i64::from(entry.seconds) * 1000;
            if stored_ms + 999 < from_ms {
                break;
            }
            if entry.hash == hash && stored_ms <= to_ms {
                found.push(LogOffset(entry.at));
            }
            if number <= entry.previous {
                break;
            }
            number = entry.previous;
        }
    }
}

fn slot_at(slot: u32) -> u64 {
    HEADER_LEN + u64::from(slot) * SLOT_LEN
}

fn entry_at(slot_count: u32, number: u32) -> u64 {
    HEADER_LEN + u64::from(slot_count) * SLOT_LEN + u64::from(number) * ENTRY_LEN
}

/// `yyyyMMddHHmmssSSS`: a file's name, which upstream reads as a number.
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
        assert_eq!(hashes, ["t#u", "t#a", "t#b", "t#c", "t#T#x"].map(hash));
    }

    #[test]
    fn what_is_found_does_not_depend_on_what_is_added_meanwhile() {
        let dir = tempfile::tempdir().unwrap();
        let sizes = Settings { index_slot_count: 2, index_entry_count: 50_000, ..Settings::at("") };
        let settings = Settings { root: dir.path().to_owned(), ..sizes };
        let index = Index::open(Arc::new(crate::disk::RealDisk), &settings, None).unwrap();
        let put = |number: u64| {
            let hashes = TopicHash::of("t").keys(format!("KEYS\x01{}\x02", number / 2).as_bytes());
            index.put(&hashes, LogOffset(number), 1_700_000_000_000).unwrap();
            index.settle().unwrap();
        };
        (0..100).for_each(put);
        std::thread::scope(|scope| {
            let adding = scope.spawn(|| (100..100_000).for_each(put));
            while !adding.is_finished() {
                let found = index.query(TopicHash::of("t").key("0"), 9, (0, i64::MAX));
                assert_eq!(found, [1, 0].map(LogOffset));
            }
        });
    }
}
