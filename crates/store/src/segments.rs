//! A row of equal files as one address space. A file's name is its first byte's offset, 20 digits.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;

use crate::disk::{Disk, DiskFile};
use crate::error::Error;

/// The files, oldest first, each where the one before it ends.
pub struct Segments {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    len: u64,
    row: RwLock<Row>,
}

struct Row {
    /// Offset of the first file's first byte.
    start: u64,
    files: Vec<Arc<dyn DiskFile>>,
}

impl Segments {
    /// Opens the files of `dir`, each `len` bytes long; `setting` names what says so.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        len: u64,
        setting: &'static str,
    ) -> Result<Self, Error> {
        let mut row = Row { start: 0, files: Vec::new() };
        let entries = disk.list(dir).map_err(Error::io(dir))?;
        let mut entries: Vec<_> = entries.into_iter().filter(|it| !it.is_dir).collect();
        if let Some(last) = entries.last().filter(|it| it.len == 0) {
            // Left by a crash between making the file and giving it its length.
            let path = dir.join(&last.name);
            disk.remove(&path).map_err(Error::io(&path))?;
            entries.pop();
        }
        for entry in entries {
            let path = dir.join(&entry.name);
            if entry.len != len {
                return Err(Error::WrongLength { path, found: entry.len, expected: len, setting });
            }
            let what = "is no segment: its name is not its offset";
            let start: u64 =
                entry.name.parse().map_err(|_| Error::Foreign { path: path.clone(), what })?;
            if row.files.is_empty() {
                row.start = start;
            } else if start != row.start + row.files.len() as u64 * len {
                let what = "does not start where the file before it ends";
                return Err(Error::Foreign { path, what });
            }
            row.files.push(disk.open(&path, len).map_err(Error::io(&path))?);
        }
        Ok(Self { disk, dir: dir.to_owned(), len, row: RwLock::new(row) })
    }

    #[must_use]
    pub fn segment_len(&self) -> u64 {
        self.len
    }

    /// The offset of the first byte, and of the first byte after the last file.
    #[must_use]
    pub fn bounds(&self) -> (u64, u64) {
        let row = self.row.read();
        (row.start, row.start + row.files.len() as u64 * self.len)
    }

    /// The file that holds `offset`, and the place in it.
    #[must_use]
    pub fn locate(&self, offset: u64) -> Option<(Arc<dyn DiskFile>, u64)> {
        let row = self.row.read();
        let from_start = offset.checked_sub(row.start)?;
        let file = row.files.get((from_start / self.len) as usize)?;
        Some((Arc::clone(file), from_start % self.len))
    }

    /// The file that holds `offset`; the files up to it are made if need be.
    pub fn locate_or_create(&self, offset: u64) -> Result<(Arc<dyn DiskFile>, u64), Error> {
        loop {
            if let Some(found) = self.locate(offset) {
                return Ok(found);
            }
            self.create_next(offset)?;
        }
    }

    /// Makes the next file; the first one where `offset` lies.
    fn create_next(&self, offset: u64) -> Result<(), Error> {
        let (start, end) = self.bounds();
        let next = if start == end { offset - offset % self.len } else { end };
        let path = self.path(next);
        let file = self.disk.open(&path, self.len).map_err(Error::io(&path))?;
        let mut row = self.row.write();
        // Another thread may have made it meanwhile; both opened the same file.
        if row.files.is_empty() {
            row.start = next;
        }
        if row.start + row.files.len() as u64 * self.len == next {
            row.files.push(file);
        }
        Ok(())
    }

    /// Removes the files that hold nothing below `end`.
    pub fn truncate(&self, end: u64) -> Result<(), Error> {
        loop {
            let (start, after) = self.bounds();
            if start == after || after - self.len < end {
                return Ok(());
            }
            let path = self.path(after - self.len);
            self.row.write().files.pop();
            self.disk.remove(&path).map_err(Error::io(&path))?;
        }
    }

    /// Removes the oldest file.
    pub fn remove_first(&self) -> Result<(), Error> {
        let path = {
            let mut row = self.row.write();
            let path = self.path(row.start);
            row.files.remove(0);
            row.start += self.len;
            path
        };
        self.disk.remove(&path).map_err(Error::io(&path))
    }

    /// Syncs a range of offsets, across files.
    pub fn sync(&self, from: u64, to: u64) -> Result<(), Error> {
        let mut at = from;
        while at < to {
            let Some((file, place)) = self.locate(at) else { return Ok(()) };
            let end = (place + (to - at)).min(self.len);
            file.sync(place, end).map_err(Error::io(self.path(at - place)))?;
            at += end - place;
        }
        Ok(())
    }

    #[must_use]
    pub fn path(&self, offset: u64) -> PathBuf {
        self.dir.join(format!("{offset:020}"))
    }
}
