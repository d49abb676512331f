//! A disk in memory: keeps what was synced. In a crash it loses, tears and reorders the rest; it
//! fills up, and its syncs fail when asked to. Any single call of the seam can be made to fail.
//!
//! What a device keeps of a file is counted in sectors: of those written since the last sync, each
//! may have reached the device or not. Names (create, remove, rename) reach it in order, as in a
//! journaling file system: a crash cuts the row off anywhere, and a sync of a file keeps the row
//! up to the file's own creation.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use apogee_store::disk::Entry;
use apogee_store::{Disk, DiskFile};
use bytes::Bytes;
use parking_lot::Mutex;

const SECTOR: usize = 512;
/// The unit in which space is given out.
const PAGE: usize = 4096;

type FileId = u64;
type Names = BTreeMap<PathBuf, FileId>;

/// What goes wrong beside crashes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// One of so many syncs fails; 0 for never. What it was to keep is kept in part, and the
    /// rest counts as kept from then on: as Linux does after an error of the device.
    pub failed_sync_one_in: u32,
    /// Bytes that fit on the disk; 0 for no limit.
    pub capacity: u64,
}

/// How a call goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// EIO, and nothing is done. Of a sync the writes still count as kept from then on.
    Device,
    /// ENOSPC, and nothing is done; only of calls that may want space.
    Full,
    /// EIO on the way: a part is written, zeroed, removed or on the device; a file is made, and
    /// empty; a small file is replaced, and the device may not have it.
    Half,
}

/// A call of the seam that something can go wrong with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The method; `create` where `open` makes the file.
    pub what: &'static str,
    pub path: PathBuf,
}

impl Call {
    /// The call may fail in that way.
    #[must_use]
    pub fn may_fail(&self, fault: Fault) -> bool {
        const WRITING: [&str; 8] = [
            "create",
            "replace",
            "write_through",
            "sync",
            "sync_all",
            "zero",
            "allocate",
            "prepare",
        ];
        match fault {
            Fault::Device => true,
            Fault::Full => WRITING.contains(&self.what) || self.what == "rename",
            Fault::Half => WRITING.contains(&self.what) || self.what == "remove",
        }
    }
}

/// Which calls fail, and how.
#[derive(Debug, Clone, Copy)]
pub struct Broken {
    /// Counted from 0, from when the disk broke.
    pub call: usize,
    pub fault: Fault,
    /// All that follow fail as well.
    pub for_good: bool,
}

/// Calls since they are counted.
#[derive(Default)]
struct Watch {
    broken: Option<Broken>,
    calls: Vec<Call>,
    /// Those that were made to fail and are not told yet.
    failed: Vec<Call>,
}

/// The disk. Clones are handles of the same one.
#[derive(Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

struct State {
    files: BTreeMap<FileId, Content>,
    next_id: FileId,
    /// What processes see, and what the device would show after a crash.
    names: Names,
    kept_names: Names,
    /// Changes of names that the device may not have, in order.
    journal: Vec<Change>,
    locks: BTreeSet<PathBuf>,
    /// Rises with each death of the process, whose locks end with it.
    generation: u64,
    random: fastrand::Rng,
    faults: Faults,
    /// The power fails instead of this change from now, counted from 0, and of all that follow.
    fuse: Option<u32>,
    watch: Option<Watch>,
}

/// What a panic carries that the power's failure is: it unwinds whoever writes, without a word.
#[derive(Debug)]
pub struct PowerCut;

#[derive(Clone)]
enum Change {
    Name(PathBuf, FileId),
    Remove(PathBuf),
    /// Also of a directory.
    Move(PathBuf, PathBuf),
}

/// A file's bytes as processes see them and as the device has them; of the same length.
struct Content {
    now: Vec<u8>,
    kept: Vec<u8>,
    /// Sectors where the two may differ.
    dirty: BTreeSet<usize>,
    /// Pages that have space on the disk.
    allocated: BTreeSet<usize>,
    /// A sync of the whole disk lost sectors of it: its own next sync says so, once, to the process
    /// that had it open.
    has_lost: bool,
}

impl Content {
    fn zeros(len: usize) -> Self {
        let (dirty, allocated) = (BTreeSet::new(), BTreeSet::new());
        Self { now: vec![0; len], kept: vec![0; len], dirty, allocated, has_lost: false }
    }

    fn keep_sector(&mut self, sector: usize) {
        let range = sector * SECTOR..self.now.len().min((sector + 1) * SECTOR);
        self.kept[range.clone()].copy_from_slice(&self.now[range]);
    }

    /// Of the range, the sectors reach the device for which `is_kept`, and all count as clean.
    fn sync(&mut self, from: usize, to: usize, mut is_kept: impl FnMut() -> bool) {
        let sectors = from / SECTOR..to.div_ceil(SECTOR);
        let dirty: Vec<usize> = self.dirty.range(sectors).copied().collect();
        for sector in dirty {
            self.dirty.remove(&sector);
            if is_kept() {
                self.keep_sector(sector);
            }
        }
    }

    fn note_dirty(&mut self, from: usize, to: usize) {
        self.dirty.extend(from / SECTOR..to.div_ceil(SECTOR));
    }
}

impl SimDisk {
    #[must_use]
    pub fn new(seed: u64, faults: Faults) -> Self {
        let state = State {
            files: BTreeMap::new(),
            next_id: 1,
            names: Names::new(),
            kept_names: Names::new(),
            journal: Vec::new(),
            locks: BTreeSet::new(),
            generation: 0,
            random: fastrand::Rng::with_seed(seed),
            faults,
            fuse: None,
            watch: None,
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    pub fn set_faults(&self, faults: Faults) {
        self.state.lock().faults = faults;
    }

    /// Calls are counted from now on, and those that are broken fail.
    pub fn watch(&self, broken: Option<Broken>) {
        self.state.lock().watch = Some(Watch { broken, ..Watch::default() });
    }

    /// All calls work again, and are no longer counted; those that were made meanwhile.
    pub fn mend(&self) -> Vec<Call> {
        self.state.lock().watch.take().unwrap_or_default().calls
    }

    /// The calls that were made to fail since this was asked last.
    pub fn take_failed(&self) -> Vec<Call> {
        let mut state = self.state.lock();
        state.watch.as_mut().map_or(Vec::new(), |watch| std::mem::take(&mut watch.failed))
    }

    /// The power will fail in the middle of things, or will not: after so many changes of the
    /// disk each further one is a panic with [`PowerCut`], until [`crash`](Self::crash) draws the
    /// balance.
    pub fn fail_after(&self, changes: Option<u32>) {
        self.state.lock().fuse = changes;
    }

    /// The power has failed and [`crash`](Self::crash) was not called yet.
    #[must_use]
    pub fn has_no_power(&self) -> bool {
        self.state.lock().fuse == Some(0)
    }

    /// The process dies; what it wrote is in the memory of the operating system.
    pub fn kill(&self) {
        let mut state = self.state.lock();
        state.locks.clear();
        state.files.values_mut().for_each(|content| content.has_lost = false);
        state.generation += 1;
    }

    /// The power fails: only the device's content is left, and of what was on its way any part.
    pub fn crash(&self) {
        self.kill();
        let mut state = self.state.lock();
        let state = &mut *state;
        state.fuse = None;
        let kept = state.random.usize(0..=state.journal.len());
        state.commit(kept);
        state.journal.clear();
        state.names = state.kept_names.clone();
        let named: BTreeSet<FileId> = state.names.values().copied().collect();
        state.files.retain(|id, _| named.contains(id));
        for content in state.files.values_mut() {
            for sector in std::mem::take(&mut content.dirty) {
                if state.random.bool() {
                    content.keep_sector(sector);
                }
            }
            content.now.copy_from_slice(&content.kept);
        }
    }

    /// The operating system writes something back without being asked.
    pub fn write_back(&self) {
        let mut state = self.state.lock();
        let state = &mut *state;
        for content in state.files.values_mut() {
            let written: Vec<_> =
                content.dirty.iter().copied().filter(|_| state.random.bool()).collect();
            for sector in written {
                content.keep_sector(sector);
                content.dirty.remove(&sector);
            }
        }
    }

    /// All bytes of a file, for a test that looks at them.
    #[must_use]
    pub fn content(&self, path: &Path) -> Option<Vec<u8>> {
        self.state.lock().find(path).map(|content| content.now.clone())
    }
}

impl State {
    /// To be called before every change.
    fn use_power(&mut self) {
        match &mut self.fuse {
            None => {}
            Some(0) => std::panic::resume_unwind(Box::new(PowerCut)),
            Some(left) => *left -= 1,
        }
    }

    /// To be called first by every call that can fail. `true`: it is to fail half way.
    fn enter(&mut self, what: &'static str, path: &Path) -> io::Result<bool> {
        /// Far more than any history makes: who gets there tries without end.
        const COUNT_MAX: usize = 100_000;
        let Some(watch) = &mut self.watch else { return Ok(false) };
        let number = watch.calls.len();
        assert!(number < COUNT_MAX, "{what} {path:?} again and again");
        let call = Call { what, path: path.to_owned() };
        watch.calls.push(call.clone());
        let hit = watch.broken.filter(|it| match it.for_good {
            true => it.call <= number && call.may_fail(it.fault),
            false => it.call == number,
        });
        let Some(broken) = hit else { return Ok(false) };
        watch.failed.push(call);
        match broken.fault {
            Fault::Device => Err(device_failed()),
            Fault::Full => Err(io::ErrorKind::StorageFull.into()),
            Fault::Half => Ok(true),
        }
    }

    fn sync_fails(&mut self) -> bool {
        let one_in = self.faults.failed_sync_one_in;
        one_in != 0 && self.random.u32(0..one_in) == 0
    }

    fn find(&self, path: &Path) -> Option<&Content> {
        self.files.get(self.names.get(path)?)
    }

    fn create(&mut self, path: &Path, content: Content) -> FileId {
        let id = self.next_id;
        self.next_id += 1;
        self.files.insert(id, content);
        self.change(Change::Name(path.to_owned(), id));
        id
    }

    fn change(&mut self, change: Change) {
        apply(&mut self.names, &change);
        self.journal.push(change);
    }

    /// The device has the first `count` changes of the journal.
    fn commit(&mut self, count: usize) {
        for change in self.journal.drain(..count) {
            apply(&mut self.kept_names, &change);
        }
    }

    /// Commits what a sync of the file implies: its own name, and what came before that.
    fn commit_creation(&mut self, id: FileId) {
        let created = |change: &Change| matches!(change, Change::Name(_, named) if *named == id);
        if let Some(at) = self.journal.iter().rposition(created) {
            self.commit(at + 1);
        }
    }

    fn used(&self) -> u64 {
        let named = self.names.values().filter_map(|id| self.files.get(id));
        named.map(|content| (content.allocated.len() * PAGE) as u64).sum()
    }

    /// Writes what memory shows, and what a sync brings to the device.
    fn write(&mut self, file: &SimFile, at: u64, bytes: &[u8]) -> io::Result<()> {
        let (from, to) = (at as usize, at as usize + bytes.len());
        assert!(to as u64 <= file.len, "{at} + {} lies outside {}", bytes.len(), file.len);
        self.use_power();
        self.allocate(file.id, from, to)?;
        let Some(content) = self.files.get_mut(&file.id) else { return Ok(()) };
        content.now[from..to].copy_from_slice(bytes);
        content.note_dirty(from, to);
        Ok(())
    }

    /// A file that was removed has no space and wants none.
    fn has_space(&self, id: FileId, at: u64, len: usize) -> bool {
        let mut pages = at as usize / PAGE..(at as usize + len).div_ceil(PAGE);
        let content = self.files.get(&id);
        content.is_none_or(|content| pages.all(|page| content.allocated.contains(&page)))
    }

    /// Gives pages space, or says that there is none.
    fn allocate(&mut self, id: FileId, from: usize, to: usize) -> io::Result<()> {
        let pages = from / PAGE..to.div_ceil(PAGE);
        let Some(content) = self.files.get(&id) else { return Ok(()) };
        let missing = pages.clone().filter(|page| !content.allocated.contains(page)).count();
        let capacity = self.faults.capacity;
        if 0 < missing && capacity != 0 && capacity < self.used() + (missing * PAGE) as u64 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if let Some(content) = self.files.get_mut(&id) {
            content.allocated.extend(pages);
        }
        Ok(())
    }
}

fn device_failed() -> io::Error {
    io::Error::other("the device failed")
}

fn apply(names: &mut Names, change: &Change) {
    match change {
        Change::Name(path, id) => drop(names.insert(path.clone(), *id)),
        Change::Remove(path) => drop(names.remove(path)),
        Change::Move(from, to) => {
            let moved: Vec<_> = names.extract_if(.., |name, _| name.starts_with(from)).collect();
            for (name, id) in moved {
                // Of a file itself nothing is left to join.
                let rest = name.strip_prefix(from).expect("it was just compared");
                let name = if rest.as_os_str().is_empty() { to.clone() } else { to.join(rest) };
                names.insert(name, id);
            }
        }
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, len: u64) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state.lock();
        state.use_power();
        let there = state.names.get(path).copied();
        let is_half = state.enter(if there.is_some() { "open" } else { "create" }, path)?;
        let made = if is_half { 0 } else { len };
        let id = match there {
            Some(id) => id,
            None => state.create(path, Content::zeros(made as usize)),
        };
        if is_half {
            return Err(device_failed());
        }
        if let Some(content) = state.files.get_mut(&id) {
            content.now.resize(len as usize, 0);
            content.kept.resize(len as usize, 0);
        }
        Ok(Arc::new(SimFile { state: Arc::clone(&self.state), path: path.to_owned(), id, len }))
    }

    fn reopen(&self, path: &Path, len: u64) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state.lock();
        state.enter("reopen", path)?;
        let id = *state.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(SimFile { state: Arc::clone(&self.state), path: path.to_owned(), id, len }))
    }

    fn peek(&self, path: &Path, at: u64, out: &mut [u8]) -> io::Result<()> {
        let mut state = self.state.lock();
        state.enter("peek", path)?;
        let content = state.find(path).ok_or(io::ErrorKind::NotFound)?;
        out.copy_from_slice(&content.now[at as usize..at as usize + out.len()]);
        Ok(())
    }

    fn sync_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.use_power();
        let entered = state.enter("sync_all", path);
        let fails = !matches!(entered, Ok(false)) || state.sync_fails();
        let State { files, random, .. } = &mut *state;
        for content in files.values_mut() {
            let is_kept = || !fails || (entered.is_ok() && random.bool());
            content.sync(0, content.now.len(), is_kept);
            content.has_lost |= fails;
        }
        entered?;
        if fails {
            return Err(device_failed());
        }
        let all = state.journal.len();
        state.commit(all);
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let mut state = self.state.lock();
        state.enter("list", dir)?;
        let mut entries = BTreeMap::new();
        for (path, id) in &state.names {
            let Ok(inner) = path.strip_prefix(dir) else { continue };
            let mut parts = inner.iter();
            let Some(name) = parts.next().and_then(|name| name.to_str()) else { continue };
            let is_dir = parts.next().is_some();
            let len = state.files.get(id).map_or(0, |content| content.now.len() as u64);
            entries.insert(name.to_owned(), (is_dir, if is_dir { 0 } else { len }));
        }
        let entry = |(name, (is_dir, len))| Entry { name, is_dir, len };
        Ok(entries.into_iter().map(entry).collect())
    }

    fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        self.state.lock().enter("read", path)?;
        Ok(self.content(path))
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state.lock();
        state.use_power();
        let is_half = state.enter("replace", path)?;
        let mut content = Content::zeros(bytes.len());
        content.now.copy_from_slice(bytes);
        content.kept.copy_from_slice(bytes);
        let id = state.next_id;
        state.next_id += 1;
        state.files.insert(id, content);
        if let Err(full) = state.allocate(id, 0, bytes.len()) {
            state.files.remove(&id);
            return Err(full);
        }
        state.change(Change::Name(path.to_owned(), id));
        if is_half {
            return Err(device_failed());
        }
        let all = state.journal.len();
        state.commit(all);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.use_power();
        state.enter("rename", from)?;
        if !state.names.keys().any(|name| name.starts_with(from)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.change(Change::Move(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.use_power();
        let is_half = state.enter("remove", path)?;
        let gone: Vec<_> =
            state.names.keys().filter(|name| name.starts_with(path)).cloned().collect();
        // A directory's entries go in no order.
        let first = usize::from(is_half);
        let gone = gone.into_iter().skip(first).step_by(1 + first);
        gone.for_each(|name| state.change(Change::Remove(name)));
        if is_half { Err(device_failed()) } else { Ok(()) }
    }

    fn used_ratio(&self, path: &Path) -> io::Result<f64> {
        let mut state = self.state.lock();
        state.enter("used_ratio", path)?;
        Ok(match state.faults.capacity {
            0 => 0.0,
            capacity => state.used() as f64 / capacity as f64,
        })
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let mut state = self.state.lock();
        state.enter("lock", path)?;
        if !state.locks.insert(path.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let generation = state.generation;
        Ok(Box::new(Lock { state: Arc::clone(&self.state), path: path.to_owned(), generation }))
    }
}

struct Lock {
    state: Arc<Mutex<State>>,
    path: PathBuf,
    generation: u64,
}

impl Drop for Lock {
    fn drop(&mut self) {
        let mut state = self.state.lock();
        if state.generation == self.generation {
            state.locks.remove(&self.path);
        }
    }
}

struct SimFile {
    state: Arc<Mutex<State>>,
    path: PathBuf,
    id: FileId,
    len: u64,
}

impl SimFile {
    /// Looks at the content; a file that was removed while it was open reads as zeros.
    fn with<T>(&self, look: impl FnOnce(&[u8]) -> T) -> T {
        let state = self.state.lock();
        match state.files.get(&self.id) {
            Some(content) => look(&content.now),
            None => look(&vec![0; self.len as usize]),
        }
    }

    fn take_space(&self, what: &'static str, from: u64, to: u64) -> io::Result<()> {
        let to = to.min(self.len);
        if to <= from {
            return Ok(());
        }
        let mut state = self.state.lock();
        if state.enter(what, &self.path)? {
            state.allocate(self.id, from as usize, from.midpoint(to) as usize)?;
            return Err(device_failed());
        }
        state.allocate(self.id, from as usize, to as usize)
    }
}

impl DiskFile for SimFile {
    fn len(&self) -> u64 {
        self.len
    }

    fn expect_scattered(&self) -> io::Result<()> {
        self.state.lock().enter("expect_scattered", &self.path).map(|_| ())
    }

    fn write_at(&self, at: u64, bytes: &[u8]) {
        let mut state = self.state.lock();
        // While calls fail, also one that was to give space: who goes on all the same is caught.
        let has_space = state.watch.is_none() || state.has_space(self.id, at, bytes.len());
        assert!(has_space, "written where no space was taken: SIGBUS on a real disk that is full");
        let written = state.write(self, at, bytes);
        assert!(written.is_ok(), "written where the full disk has no space: SIGBUS on a real one");
    }

    fn write_through(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state.lock();
        if state.enter("write_through", &self.path)? {
            state.write(self, at, &bytes[..bytes.len() / 2])?;
            return Err(device_failed());
        }
        state.write(self, at, bytes)
    }

    fn read_at(&self, at: u64, out: &mut [u8]) {
        self.with(|bytes| out.copy_from_slice(&bytes[at as usize..at as usize + out.len()]));
    }

    fn append_to(&self, at: u64, len: usize, out: &mut Vec<u8>) {
        self.with(|bytes| out.extend_from_slice(&bytes[at as usize..at as usize + len]));
    }

    fn slice(&self, at: u64, len: usize) -> Bytes {
        self.with(|bytes| Bytes::copy_from_slice(&bytes[at as usize..at as usize + len]))
    }

    fn sync(&self, from: u64, to: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        state.use_power();
        let entered = state.enter("sync", &self.path);
        let mut fails = !matches!(entered, Ok(false)) || state.sync_fails();
        let State { files, random, .. } = &mut *state;
        if let Some(content) = files.get_mut(&self.id) {
            fails |= std::mem::take(&mut content.has_lost);
            let is_kept = || !fails || (entered.is_ok() && random.bool());
            content.sync(from as usize, to as usize, is_kept);
        }
        entered?;
        if fails {
            return Err(device_failed());
        }
        state.commit_creation(self.id);
        Ok(())
    }

    fn zero(&self, from: u64, to: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        state.use_power();
        let is_half = state.enter("zero", &self.path)?;
        let Some(content) = state.files.get_mut(&self.id) else { return Ok(()) };
        let (from, mut to) = (from as usize, (to as usize).max(from as usize));
        if is_half {
            to = from.midpoint(to);
        }
        content.now[from..to].fill(0);
        content.note_dirty(from, to);
        let pages = from.div_ceil(PAGE)..to / PAGE;
        content.allocated.retain(|page| !pages.contains(page));
        if is_half { Err(device_failed()) } else { Ok(()) }
    }

    fn prepare(&self, from: u64, to: u64) -> io::Result<()> {
        self.take_space("prepare", from, to)
    }

    fn allocate(&self, from: u64, to: u64) -> io::Result<()> {
        self.take_space("allocate", from, to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(disk: &SimDisk, path: &Path) -> Vec<u8> {
        disk.content(path).unwrap_or_default()
    }

    #[test]
    fn what_was_synced_survives_and_the_rest_is_torn_at_sectors() {
        let path = Path::new("/f");
        let mut seen = BTreeSet::new();
        for seed in 0..64 {
            let disk = SimDisk::new(seed, Faults::default());
            let file = disk.open(path, 4096).unwrap();
            file.write_at(0, &[1; 1024]);
            file.sync(0, 1024).unwrap();
            file.write_at(512, &[2; 1024]);
            disk.crash();
            let bytes = written(&disk, path);
            assert_eq!(bytes[..512], [1; 512]);
            seen.insert((bytes[512], bytes[1024]));
            assert!(bytes[1536..].iter().all(|byte| *byte == 0));
        }
        assert_eq!(seen.len(), 4, "every combination of two sectors is met: {seen:?}");
    }

    #[test]
    fn names_are_kept_in_order_and_by_the_sync_of_their_file() {
        let mut seen = BTreeSet::new();
        for seed in 0..64 {
            let disk = SimDisk::new(seed, Faults::default());
            let a = disk.open(Path::new("/d/a"), 512).unwrap();
            let _b = disk.open(Path::new("/d/b"), 512).unwrap();
            a.sync(0, 512).unwrap();
            disk.remove(Path::new("/d/a")).unwrap();
            disk.crash();
            let names = disk.list(Path::new("/d")).unwrap();
            seen.insert(names.into_iter().map(|entry| entry.name).collect::<String>());
        }
        assert_eq!(seen, BTreeSet::from(["a", "ab", "b"].map(str::to_owned)));
    }

    #[test]
    fn a_full_disk_refuses_to_prepare_and_a_removed_file_makes_room() {
        let faults = Faults { capacity: 8192, ..Faults::default() };
        let disk = SimDisk::new(1, faults);
        let a = disk.open(Path::new("/a"), 8192).unwrap();
        let b = disk.open(Path::new("/b"), 4096).unwrap();
        a.prepare(0, 8192).unwrap();
        assert_eq!(b.prepare(0, 1).unwrap_err().kind(), io::ErrorKind::StorageFull);
        disk.remove(Path::new("/a")).unwrap();
        b.prepare(0, 1).unwrap();
    }

    #[test]
    fn a_call_fails_half_way_once_and_is_told() {
        let disk = SimDisk::new(1, Faults::default());
        let file = disk.open(Path::new("/f"), 512).unwrap();
        disk.watch(Some(Broken { call: 1, fault: Fault::Half, for_good: false }));
        file.write_through(0, &[1; 4]).unwrap();
        assert!(disk.take_failed().is_empty());
        file.write_through(0, &[2; 4]).unwrap_err();
        let call = Call { what: "write_through", path: "/f".into() };
        assert_eq!(disk.take_failed(), vec![call.clone()]);
        assert_eq!(written(&disk, Path::new("/f"))[..4], [2, 2, 1, 1]);
        file.write_through(0, &[3; 4]).unwrap();
        assert_eq!(disk.mend(), vec![call; 3]);
    }

    #[test]
    fn the_power_fails_after_so_many_changes() {
        let disk = SimDisk::new(1, Faults::default());
        let file = disk.open(Path::new("/f"), 512).unwrap();
        disk.fail_after(Some(1));
        file.write_at(0, &[1; 512]);
        assert!(disk.has_no_power());
        let second = std::panic::AssertUnwindSafe(|| file.write_at(0, &[2; 512]));
        assert!(std::panic::catch_unwind(second).unwrap_err().is::<PowerCut>());
        assert_eq!(written(&disk, Path::new("/f")), [1; 512]);
        disk.crash();
        assert!(!disk.has_no_power());
    }

    #[test]
    fn a_lock_ends_with_its_holder_or_with_the_process() {
        let disk = SimDisk::new(1, Faults::default());
        let path = Path::new("/lock");
        let lock = disk.lock(path).unwrap();
        assert!(disk.lock(path).is_err());
        disk.kill();
        let second = disk.lock(path).unwrap();
        drop(lock);
        assert!(disk.lock(path).is_err());
        drop(second);
        assert!(disk.lock(path).is_ok());
    }
}
