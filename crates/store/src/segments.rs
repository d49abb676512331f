//! A row of equal files as one address space. A file's name is its first byte's offset, 20 digits.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;

use crate::disk::{Disk, DiskFile};
use crate::error::Error;
use crate::open_files::{OpenFiles, Row, Slot};

/// A file, and a place in it.
pub type Located = (Arc<dyn DiskFile>, u64);

/// The files, oldest first, each where the one before it ends.
pub struct Segments {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    len: u64,
    row: Arc<RwLock<Row>>,
    /// Who closes files; without it all are open, always.
    open_files: Option<Arc<OpenFiles>>,
}

impl Segments {
    /// An error if the files of `dir` are none of a row; nothing is written.
    pub fn judge(
        disk: &dyn Disk,
        dir: &Path,
        len: u64,
        setting: &'static str,
    ) -> Result<(), Error> {
        look(disk, dir, len, setting).map(|_| ())
    }

    /// Makes the files of `dir` a row: each gets its length, and what is missing between them is
    /// made. What was lost is blank.
    pub fn mend(disk: &dyn Disk, dir: &Path, len: u64) -> Result<(), Error> {
        /// More than this nobody loses; one of the names is none of ours.
        const LOST_MAX: u64 = 1000;
        let entries = disk.list(dir).map_err(Error::io(dir))?;
        let starts = entries.iter().filter_map(|it| it.name.parse::<u64>().ok());
        let (Some(first), Some(last)) = (starts.clone().min(), starts.max()) else { return Ok(()) };
        if entries.len() as u64 + LOST_MAX < (last - first) / len {
            return Err(Error::Gap { path: path(dir, last) });
        }
        for start in (first..=last).step_by(len as usize) {
            let path = path(dir, start);
            disk.open(&path, len).map_err(Error::io(path))?;
        }
        Ok(())
    }

    /// Opens the files of `dir`, each `len` bytes long; `setting` names what says so.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        len: u64,
        setting: &'static str,
    ) -> Result<Self, Error> {
        let mut row = find(&*disk, dir, len, setting)?;
        for (start, slot) in (row.start..).step_by(len as usize).zip(&mut row.slots) {
            let path = path(dir, start);
            slot.file = Some(disk.open(&path, len).map_err(Error::io(&path))?);
        }
        let row = Arc::new(RwLock::new(row));
        Ok(Self { disk, dir: dir.to_owned(), len, row, open_files: None })
    }

    /// The same, but a file is opened when it is used, and closed when `open_files` needs room.
    pub fn open_on_use(
        disk: Arc<dyn Disk>,
        dir: &Path,
        len: u64,
        setting: &'static str,
        open_files: Arc<OpenFiles>,
    ) -> Result<Self, Error> {
        let row = Arc::new(RwLock::new(find(&*disk, dir, len, setting)?));
        Ok(Self { disk, dir: dir.to_owned(), len, row, open_files: Some(open_files) })
    }

    #[must_use]
    pub fn segment_len(&self) -> u64 {
        self.len
    }

    /// How many files there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.row.read().slots.len()
    }

    /// The offset of the first byte, and of the first byte after the last file.
    #[must_use]
    pub fn bounds(&self) -> (u64, u64) {
        let row = self.row.read();
        (row.start, row.end())
    }

    /// The file that holds `offset`, and the place in it; `None` also if it is closed.
    #[must_use]
    pub fn locate(&self, offset: u64) -> Option<Located> {
        let row = self.row.read();
        let file = row.slot(offset)?.file.as_ref()?;
        Some((Arc::clone(file), (offset - row.start) % self.len))
    }

    /// The file that holds `offset`, and the place in it; it is opened if need be.
    pub fn locate_or_open(&self, offset: u64) -> Result<Option<Located>, Error> {
        if let Some(found) = self.locate(offset) {
            return Ok(Some(found));
        }
        let (start, end) = self.bounds();
        if offset < start || end <= offset {
            return Ok(None);
        }
        let place = (offset - start) % self.len;
        let path = self.path(offset - place);
        let file = self.disk.reopen(&path, self.len).map_err(Error::io(&path))?;
        let file = self.keep_open(offset - place, file).map_err(Error::io(path))?;
        Ok(Some((file, place)))
    }

    /// The file that holds `offset`; the files up to it are made if need be.
    pub fn locate_or_create(&self, offset: u64) -> Result<Located, Error> {
        loop {
            if let Some(found) = self.locate_or_open(offset)? {
                return Ok(found);
            }
            self.create_next(offset)?;
        }
    }

    /// Reads bytes of one file, which is not opened for that. Whether there is such a file.
    pub fn peek(&self, offset: u64, out: &mut [u8]) -> Result<bool, Error> {
        if let Some((file, place)) = self.locate(offset) {
            file.read_at(place, out);
            return Ok(true);
        }
        let (start, end) = self.bounds();
        if offset < start || end <= offset {
            return Ok(false);
        }
        let place = (offset - start) % self.len;
        let path = self.path(offset - place);
        self.disk.peek(&path, place, out).map_err(Error::io(&path))?;
        Ok(true)
    }

    /// Makes the next file; the first one where `offset` lies.
    fn create_next(&self, offset: u64) -> Result<(), Error> {
        let (start, end) = self.bounds();
        let next = if start == end { offset - offset % self.len } else { end };
        let path = self.path(next);
        let file = self.disk.open(&path, self.len).map_err(Error::io(&path))?;
        {
            let mut row = self.row.write();
            // Another thread may have made it meanwhile; both opened the same file.
            if row.slots.is_empty() {
                row.start = next;
            }
            if row.end() == next {
                row.slots.push(Slot::new(None));
            }
        }
        self.keep_open(next, file).map_err(Error::io(path))?;
        Ok(())
    }

    /// Others find the file at `start` open from now on. The one that they find: another thread
    /// may have opened it meanwhile.
    fn keep_open(&self, start: u64, file: Arc<dyn DiskFile>) -> io::Result<Arc<dyn DiskFile>> {
        if self.open_files.is_some() {
            // Where most files hold little, to read around what is touched fills the memory.
            file.expect_scattered()?;
        }
        {
            let mut row = self.row.write();
            let Some(slot) = row.slot_mut(start) else { return Ok(file) };
            if let Some(there) = &slot.file {
                return Ok(Arc::clone(there));
            }
            *slot = Slot::new(Some(Arc::clone(&file)));
        }
        if let Some(open_files) = &self.open_files {
            open_files.admit(&self.row, start);
        }
        Ok(file)
    }

    /// Removes the files that hold nothing below `end`.
    pub fn truncate(&self, end: u64) -> Result<(), Error> {
        loop {
            let (start, after) = self.bounds();
            if start == after || after - self.len < end {
                return Ok(());
            }
            let path = self.path(after - self.len);
            self.disk.remove(&path).map_err(Error::io(&path))?;
            self.row.write().slots.pop();
        }
    }

    /// Removes the oldest file.
    pub fn remove_first(&self) -> Result<(), Error> {
        let path = self.path(self.bounds().0);
        // From the disk first: if that fails, and the next file went, no start would take the rest
        // for a row.
        self.disk.remove(&path).map_err(Error::io(&path))?;
        let _first = {
            let mut row = self.row.write();
            row.start += self.len;
            row.slots.remove(0)
        };
        Ok(())
    }

    /// Writes bytes at an offset, across files.
    pub fn write_through(&self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        let (mut at, mut rest) = (offset, bytes);
        while !rest.is_empty() {
            let (file, place) = self.locate_or_create(at)?;
            let (part, after) = rest.split_at(rest.len().min((self.len - place) as usize));
            file.write_through(place, part).map_err(Error::io(self.path(at - place)))?;
            at += part.len() as u64;
            rest = after;
        }
        Ok(())
    }

    /// Syncs a range of offsets, across files.
    pub fn sync(&self, from: u64, to: u64) -> Result<(), Error> {
        let mut at = from;
        while at < to {
            let Some((file, place)) = self.locate_or_open(at)? else { return Ok(()) };
            let end = (place + (to - at)).min(self.len);
            file.sync(place, end).map_err(Error::io(self.path(at - place)))?;
            at += end - place;
        }
        Ok(())
    }

    #[must_use]
    pub fn path(&self, offset: u64) -> PathBuf {
        path(&self.dir, offset)
    }
}

fn path(dir: &Path, offset: u64) -> PathBuf {
    dir.join(format!("{offset:020}"))
}

/// The files of `dir`, none of them open.
fn find(disk: &dyn Disk, dir: &Path, len: u64, setting: &'static str) -> Result<Row, Error> {
    let (row, empty) = look(disk, dir, len, setting)?;
    if let Some(path) = empty {
        disk.remove(&path).map_err(Error::io(&path))?;
    }
    Ok(row)
}

/// The same, and a last file that is empty: a crash left it between making it and giving it its
/// length.
fn look(
    disk: &dyn Disk,
    dir: &Path,
    len: u64,
    setting: &'static str,
) -> Result<(Row, Option<PathBuf>), Error> {
    let entries = disk.list(dir).map_err(Error::io(dir))?;
    let entries: Vec<_> = entries.into_iter().filter(|it| !it.is_dir).collect();
    let mut row = Row { start: 0, len, slots: Vec::with_capacity(entries.len()) };
    for (index, entry) in entries.iter().enumerate() {
        let path = dir.join(&entry.name);
        let foreign = |what| Error::Foreign { path: path.clone(), what };
        let what = "is no segment: its name is not its offset";
        let start: u64 = entry.name.parse().map_err(|_| foreign(what))?;
        if entry.len == 0 && index + 1 == entries.len() {
            return Ok((row, Some(path)));
        }
        if entry.len != len {
            return Err(Error::WrongLength { path, found: entry.len, expected: len, setting });
        }
        if row.slots.is_empty() {
            row.start = start;
        } else if start != row.end() {
            return Err(Error::Gap { path });
        }
        row.slots.push(Slot::new(None));
    }
    Ok((row, None))
}
