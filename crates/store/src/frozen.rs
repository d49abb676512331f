//! The real disk with one directory that cannot change: what is written there is forgotten.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use crate::disk::{Disk, DiskFile, Entry, RealDisk};

/// Files below `dir` are read, also where the file system is read-only; nothing there is made,
/// written or removed. Everywhere else it is the real disk.
#[derive(Debug, Clone)]
pub struct Frozen {
    dir: PathBuf,
    /// How far its segments were read, as an offset of their row.
    reached: Option<Arc<AtomicU64>>,
}

impl Frozen {
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), reached: None }
    }

    /// Tells in `reached` up to which offset the segments in `dir` were read.
    #[must_use]
    pub fn watched(dir: impl Into<PathBuf>, reached: Arc<AtomicU64>) -> Self {
        Self { dir: dir.into(), reached: Some(reached) }
    }

    fn holds(&self, path: &Path) -> bool {
        path.starts_with(&self.dir)
    }
}

impl Disk for Frozen {
    fn open(&self, path: &Path, len: u64) -> io::Result<Arc<dyn DiskFile>> {
        if !self.holds(path) {
            return RealDisk.open(path, len);
        }
        let file = match RealDisk::open_to_read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            file => Some(file?),
        };
        let len = file.as_ref().map_or(len, |file| file.len());
        let start = path.file_name().and_then(|name| name.to_str()?.parse().ok());
        let reached = start.zip(self.reached.clone());
        Ok(Arc::new(FrozenFile { file, len, reached }))
    }

    fn reopen(&self, path: &Path, len: u64) -> io::Result<Arc<dyn DiskFile>> {
        if !self.holds(path) {
            return RealDisk.reopen(path, len);
        }
        let file = RealDisk::open_to_read(path)?;
        Ok(Arc::new(FrozenFile { len: file.len(), file: Some(file), reached: None }))
    }

    fn peek(&self, path: &Path, at: u64, out: &mut [u8]) -> io::Result<()> {
        RealDisk.peek(path, at, out)
    }

    /// What others wrote may not be on the device yet; bringing it there changes no byte.
    fn sync_all(&self, path: &Path) -> io::Result<()> {
        RealDisk.sync_all(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        RealDisk.list(dir)
    }

    fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        RealDisk.read(path)
    }

    fn replace(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        if self.holds(path) { Ok(()) } else { RealDisk.replace(path, content) }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        if self.holds(from) || self.holds(to) { Ok(()) } else { RealDisk.rename(from, to) }
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        if self.holds(path) { Ok(()) } else { RealDisk.remove(path) }
    }

    fn used_ratio(&self, path: &Path) -> io::Result<f64> {
        RealDisk.used_ratio(path)
    }

    /// Of a frozen file the lock is shared with others that only read.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        if self.holds(path) { RealDisk::lock_to_read(path) } else { RealDisk.lock(path) }
    }
}

/// A file as it was found; zeros if it was not.
struct FrozenFile {
    file: Option<Arc<dyn DiskFile>>,
    len: u64,
    /// Offset of the first byte, and whom to tell what was read.
    reached: Option<(u64, Arc<AtomicU64>)>,
}

impl DiskFile for FrozenFile {
    fn len(&self) -> u64 {
        self.len
    }

    fn expect_scattered(&self) -> io::Result<()> {
        self.file.as_ref().map_or(Ok(()), |file| file.expect_scattered())
    }

    fn write_at(&self, _: u64, _: &[u8]) {}

    fn write_through(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn read_at(&self, at: u64, out: &mut [u8]) {
        if let Some((start, reached)) = &self.reached {
            reached.fetch_max(start + at, Ordering::Relaxed);
        }
        match &self.file {
            Some(file) => file.read_at(at, out),
            None => out.fill(0),
        }
    }

    fn append_to(&self, at: u64, len: usize, out: &mut Vec<u8>) {
        match &self.file {
            Some(file) => file.append_to(at, len, out),
            None => out.resize(out.len() + len, 0),
        }
    }

    fn slice(&self, at: u64, len: usize) -> Bytes {
        match &self.file {
            Some(file) => file.slice(at, len),
            None => Bytes::from(vec![0; len]),
        }
    }

    /// What others wrote may not be on the device yet; bringing it there changes no byte.
    fn sync(&self, from: u64, to: u64) -> io::Result<()> {
        self.file.as_ref().map_or(Ok(()), |file| file.sync(from, to))
    }

    fn zero(&self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn allocate(&self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn prepare(&self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }
}
