//! The disk seam, and the real disk: mapped files, the only `unsafe` of this crate.
#![allow(unsafe_code, reason = "copies to and from mapped memory; each block has its proof")]
#![allow(clippy::disallowed_methods, reason = "this is the seam")]

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use memmap2::MmapRaw;
use rustix::fs::{FallocateFlags, FlockOperation};

/// What a directory holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    pub is_dir: bool,
    /// 0 of a directory.
    pub len: u64,
}

/// A disk: files of fixed length, small files that are replaced as a whole, directories.
pub trait Disk: Send + Sync {
    /// Opens a file for reading and writing; one that is not there is made, `len` bytes of zeros.
    fn open(&self, path: &Path, len: u64) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens a file that is there; `NotFound` if it is not.
    fn reopen(&self, path: &Path, len: u64) -> io::Result<Arc<dyn DiskFile>>;
    /// Reads from a file that need not be open.
    fn peek(&self, path: &Path, at: u64, out: &mut [u8]) -> io::Result<()>;
    /// Makes all earlier writes to any file of the file system of `path` survive a crash.
    fn sync_all(&self, path: &Path) -> io::Result<()>;
    /// The entries of a directory by name; empty if there is no such directory.
    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>>;
    /// A whole small file; `None` if it is not there.
    fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>>;
    /// Replaces a small file: after a crash it holds the old or the new content, whole.
    fn replace(&self, path: &Path, content: &[u8]) -> io::Result<()>;
    /// Moves a file, or a directory with all it holds; the directory that it comes to is made.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file or a directory with all it holds; it may be absent.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// How full the file system of `path` is, from 0 to 1, in whole percent rounded up (upstream's
    /// `UtilAll.getDiskPartitionSpaceUsedPercent`).
    fn used_ratio(&self, path: &Path) -> io::Result<f64>;
    /// Takes the exclusive lock of a file for as long as the result lives; one that is not there is
    /// made, and holds the word `lock`.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>>;
}

/// A file of fixed length, readable and writable at any place from any thread.
#[allow(clippy::len_without_is_empty, reason = "a file of fixed length is never empty")]
pub trait DiskFile: Send + Sync {
    fn len(&self) -> u64;
    /// It is used here and there: what is touched is read, and nothing around it.
    fn expect_scattered(&self) -> io::Result<()>;
    /// On the real disk a copy into mapped memory, not a system call.
    fn write_at(&self, at: u64, bytes: &[u8]);
    /// The same by a system call: for what is synced at once. Mapped memory would have to be
    /// protected by each sync, and asked for again by the next write.
    fn write_through(&self, at: u64, bytes: &[u8]) -> io::Result<()>;
    fn read_at(&self, at: u64, out: &mut [u8]);
    /// Appends `len` bytes to `out` with one copy.
    fn append_to(&self, at: u64, len: usize, out: &mut Vec<u8>);
    /// Borrows from the page cache where the disk is real, copies where it is simulated.
    fn slice(&self, at: u64, len: usize) -> Bytes;
    /// Makes all earlier writes to the range survive a crash.
    fn sync(&self, from: u64, to: u64) -> io::Result<()>;
    /// Makes the range zeros.
    fn zero(&self, from: u64, to: u64) -> io::Result<()>;
    /// Gives the range disk space. Writing where there is none ends the process when the disk is
    /// full, so nobody writes without.
    fn allocate(&self, from: u64, to: u64) -> io::Result<()>;
    /// Makes the range zeros and gives it memory, so that writing it does not wait. It has disk
    /// space already. Ranges that are huge pages of memory become such.
    fn prepare(&self, from: u64, to: u64) -> io::Result<()>;
}

/// The disk of the operating system.
#[derive(Debug, Default, Clone, Copy)]
pub struct RealDisk;

impl RealDisk {
    /// Maps a file that is there, as long as it is. Writing to the mapping ends the process:
    /// [`Frozen`](crate::frozen::Frozen) sees to it that nobody does.
    pub(crate) fn open_to_read(path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        let map = Arc::new(memmap2::MmapOptions::new().map_raw_read_only(&file)?);
        let whole = Bytes::from_owner(Mapping(Arc::clone(&map)));
        Ok(Arc::new(MappedFile { file, map, whole, len }))
    }

    pub(crate) fn make_dir(path: &Path) -> io::Result<()> {
        std::fs::create_dir_all(path)
    }

    /// Shares the lock of a file with others that only read; it may not be there.
    pub(crate) fn lock_to_read(path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Box::new(())),
            file => file?,
        };
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared)?;
        rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockShared)?;
        Ok(Box::new(file))
    }
}

impl Disk for RealDisk {
    fn open(&self, path: &Path, len: u64) -> io::Result<Arc<dyn DiskFile>> {
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        if file.metadata()?.len() != len {
            file.set_len(len)?;
        }
        Ok(Arc::new(MappedFile::new(file, len)?))
    }

    fn reopen(&self, path: &Path, len: u64) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        if file.metadata()?.len() != len {
            // Beyond its end, memory that is mapped cannot be touched.
            return Err(io::Error::new(io::ErrorKind::InvalidData, "its length has changed"));
        }
        Ok(Arc::new(MappedFile::new(file, len)?))
    }

    fn peek(&self, path: &Path, at: u64, out: &mut [u8]) -> io::Result<()> {
        use std::os::unix::fs::FileExt;
        File::open(path)?.read_exact_at(out, at)
    }

    fn sync_all(&self, path: &Path) -> io::Result<()> {
        Ok(rustix::fs::syncfs(File::open(path)?)?)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let entries = match std::fs::read_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut list = Vec::new();
        for entry in entries {
            let entry = entry?;
            // The directory tells the kind; to ask for a length is a system call for each.
            let is_dir = entry.file_type()?.is_dir();
            let len = if is_dir { 0 } else { entry.metadata()?.len() };
            if let Ok(name) = entry.file_name().into_string() {
                list.push(Entry { name, is_dir, len });
            }
        }
        list.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(list)
    }

    fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        match std::fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            content => content.map(Some),
        }
    }

    fn replace(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        use std::io::Write;
        let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        // Of a mere name, the parent is the empty path, which cannot be opened.
        let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        std::fs::create_dir_all(dir)?;
        let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
        name.push(".tmp");
        let tmp = dir.join(name);
        let mut file = File::create(&tmp)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&tmp, path)?;
        File::open(dir)?.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        if let Some(dir) = to.parent() {
            std::fs::create_dir_all(dir)?;
        }
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let removed = match std::fs::symlink_metadata(path) {
            Ok(metadata) if metadata.is_dir() => std::fs::remove_dir_all(path),
            Ok(_) => std::fs::remove_file(path),
            Err(error) => Err(error),
        };
        removed.or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        })
    }

    fn used_ratio(&self, path: &Path) -> io::Result<f64> {
        let space = rustix::fs::statvfs(path)?;
        // What is kept for the administrator counts neither as used nor as free.
        let used = space.f_blocks.saturating_sub(space.f_bfree);
        let usable = (used + space.f_bavail).max(1);
        Ok((used * 100).div_ceil(usable) as f64 / 100.0)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        // Java's `tryLock(0, 1, false)` is a record lock, which a process never refuses to itself;
        // `flock` does, but Java does not see it.
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive)?;
        // The same file, whoever comes first: one that took its place would be locked once more.
        if file.metadata()?.len() == 0 {
            io::Write::write_all(&mut file, b"lock")?;
        }
        Ok(Box::new(file))
    }
}

struct MappedFile {
    file: File,
    map: Arc<MmapRaw>,
    /// The whole mapping; slices of it keep it alive.
    whole: Bytes,
    len: u64,
}

/// Owner of a mapping that `Bytes` borrows from.
struct Mapping(Arc<MmapRaw>);

impl AsRef<[u8]> for Mapping {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the mapping is valid for its whole length as long as `self` lives, and readers
        // look only at ranges whose writes were published before (below the log's end).
        unsafe { std::slice::from_raw_parts(self.0.as_ptr(), self.0.len()) }
    }
}

impl MappedFile {
    fn new(file: File, len: u64) -> io::Result<Self> {
        let map = Arc::new(memmap2::MmapOptions::new().map_raw(&file)?);
        let whole = Bytes::from_owner(Mapping(Arc::clone(&map)));
        Ok(Self { file, map, whole, len })
    }

    /// With one call as far as that goes: so the kernel makes pages as large as it can. It copies
    /// longer pieces past the processor's cache, where whoever writes the range next wants it.
    fn write_zeros(&self, from: u64, to: u64) -> io::Result<()> {
        static ZEROS: [u8; 4096] = [0; 4096];
        const COUNT_MAX: usize = 512;
        let mut at = from;
        while at < to {
            let lens = (at..to).step_by(ZEROS.len()).take(COUNT_MAX);
            let lens = lens.map(|place| ZEROS.len().min((to - place) as usize));
            let slices: Vec<_> = lens.map(|len| io::IoSlice::new(&ZEROS[..len])).collect();
            match rustix::io::pwritev(&self.file, &slices, at) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => at += written as u64,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Writes a byte of each page over itself: so the range gets space where the file system has no
    /// call for that, and keeps what is in it.
    fn touch(&self, from: u64, to: u64) -> io::Result<()> {
        use std::os::unix::fs::FileExt;
        const PAGE_LEN: u64 = 4096;
        let mut at = from;
        while at < to {
            let mut byte = [0];
            self.file.read_exact_at(&mut byte, at)?;
            self.file.write_all_at(&byte, at)?;
            at = (at + 1).next_multiple_of(PAGE_LEN);
        }
        Ok(())
    }

    /// The place of a range, checked to lie within the mapping.
    fn place(&self, at: u64, len: usize) -> *mut u8 {
        let end = at.checked_add(len as u64);
        assert!(end.is_some_and(|end| end <= self.len), "{at} + {len} lies outside {}", self.len);
        // SAFETY: just checked to be within the mapping, which is `self.len` long.
        unsafe { self.map.as_mut_ptr().add(at as usize) }
    }
}

impl DiskFile for MappedFile {
    fn len(&self) -> u64 {
        self.len
    }

    fn expect_scattered(&self) -> io::Result<()> {
        self.map.advise(memmap2::Advice::Random)
    }

    fn write_at(&self, at: u64, bytes: &[u8]) {
        let place = self.place(at, bytes.len());
        // SAFETY: `place` is valid for `bytes.len()` bytes; the mapping and `bytes` do not overlap,
        // since `bytes` is ordinary memory. Writers of a file do not write the same range at once.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), place, bytes.len()) }
    }

    fn write_through(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        use std::os::unix::fs::FileExt;
        self.file.write_all_at(bytes, at)
    }

    fn read_at(&self, at: u64, out: &mut [u8]) {
        let place = self.place(at, out.len());
        // SAFETY: as in `write_at`, the other way round.
        unsafe { std::ptr::copy_nonoverlapping(place, out.as_mut_ptr(), out.len()) }
    }

    fn append_to(&self, at: u64, len: usize, out: &mut Vec<u8>) {
        let place = self.place(at, len);
        out.reserve(len);
        // SAFETY: room for `len` bytes was just reserved, and they are written before they count.
        unsafe {
            std::ptr::copy_nonoverlapping(place, out.as_mut_ptr().add(out.len()), len);
            out.set_len(out.len() + len);
        }
    }

    fn slice(&self, at: u64, len: usize) -> Bytes {
        self.whole.slice(at as usize..at as usize + len)
    }

    fn sync(&self, from: u64, to: u64) -> io::Result<()> {
        if to <= from {
            return Ok(());
        }
        let (at, len) = (from as usize, (to - from) as usize);
        // The kernel protects each page that is mapped before it writes it out, and interrupts the
        // other processors for each; to unmap them all beforehand interrupts them once. It only
        // saves time, so it may fail.
        let unmapped = memmap2::UncheckedAdvice::DontNeed;
        // SAFETY: of a file that is mapped shared, what was written stays in the page cache, where
        // the next access finds it.
        let _ = unsafe { self.map.unchecked_advise_range(unmapped, at, len) };
        self.map.flush_range(at, len)
    }

    fn zero(&self, from: u64, to: u64) -> io::Result<()> {
        if to <= from {
            return Ok(());
        }
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(&self.file, hole, from, to - from) {
            // NFS before 4.2.
            Err(rustix::io::Errno::OPNOTSUPP) => self.write_zeros(from, to),
            zeroed => Ok(zeroed?),
        }
    }

    fn allocate(&self, from: u64, to: u64) -> io::Result<()> {
        let to = to.min(self.len);
        if to <= from {
            return Ok(());
        }
        match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), from, to - from) {
            Err(rustix::io::Errno::OPNOTSUPP) => self.touch(from, to),
            allocated => Ok(allocated?),
        }
    }

    fn prepare(&self, from: u64, to: u64) -> io::Result<()> {
        // Memory that is mapped and not there would be read first, and as much after it as the
        // device likes to have read ahead: megabytes of zeros in one go, in which nobody else gets
        // the processor.
        self.write_zeros(from, to)?;
        let advice = memmap2::Advice::PopulateWrite;
        match self.map.advise_range(advice, from as usize, (to - from) as usize) {
            // An old kernel: the first write of each page waits instead.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
            populated => populated,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_gets_space_and_keeps_its_content_where_there_is_no_call_for_that() {
        use std::os::unix::fs::MetadataExt;
        const LEN: u64 = 1 << 20;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0");
        drop(RealDisk.open(&path, LEN).unwrap());
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let file = MappedFile::new(file, LEN).unwrap();
        file.write_at(77, b"content");
        let before = file.slice(0, LEN as usize).to_vec();
        file.touch(77, LEN - 4095).unwrap();
        assert_eq!(file.slice(0, LEN as usize), before);
        file.sync(0, LEN).unwrap();
        assert!(LEN <= path.metadata().unwrap().blocks() * 512);
    }

    #[test]
    fn what_is_prepared_is_zeros_and_nothing_around_it_changes() {
        const LEN: u64 = 8 << 20;
        let dir = tempfile::tempdir().unwrap();
        let file = RealDisk.open(&dir.path().join("0"), LEN).unwrap();
        for (from, to) in [(0, 4096), (1235, 64 << 10), (2 << 20, 4 << 20), (77, (5 << 20) + 3)] {
            file.write_at(0, &vec![0xAA; LEN as usize]);
            file.prepare(from, to).unwrap();
            let bytes = file.slice(0, LEN as usize);
            let (from, to) = (from as usize, to as usize);
            assert!(bytes[from..to].iter().all(|byte| *byte == 0), "{from}..{to}");
            let around = bytes[..from].iter().chain(&bytes[to..]);
            assert!(around.copied().all(|byte| byte == 0xAA), "{from}..{to}");
        }
    }
}
