//! Whose a directory is: recognises those that we must not touch, before anything is written, and
//! takes the lock of ours.

use std::io::ErrorKind;
use std::path::Path;

use crate::disk::{Disk, Entry};
use crate::error::Error;
use crate::store::Settings;

/// Takes the store's lock, the same kind as Apache's.
pub(crate) fn lock(disk: &dyn Disk, settings: &Settings) -> Result<Box<dyn Send + Sync>, Error> {
    let path = settings.root.join("lock");
    disk.lock(&path).map_err(|error| match error.kind() {
        ErrorKind::WouldBlock => Error::Locked { path },
        _ => Error::io(path)(error),
    })
}

/// Recognises stores that we cannot read.
pub(crate) fn refuse_foreign(disk: &dyn Disk, settings: &Settings) -> Result<(), Error> {
    let root = &settings.root;
    let list = |dir: &Path| disk.list(dir).map_err(Error::io(dir));
    let in_rocksdb = "holds consume queues in RocksDB, which are not supported";
    for entry in list(root)? {
        let path = root.join(&entry.name);
        if entry.is_dir && entry.name.starts_with("consumequeue_rocksdb") {
            return Err(Error::Foreign { path, what: in_rocksdb });
        }
        if entry.name.starts_with("dledger-") {
            let what = "holds a DLedger commit log, which is not supported";
            return Err(Error::Foreign { path, what });
        }
    }
    let queues = root.join("consumequeue");
    if list(&queues)?.iter().any(|entry| entry.name == "CURRENT" && !entry.is_dir) {
        return Err(Error::Foreign { path: queues, what: in_rocksdb });
    }
    // Every broker of Apache's makes the directory; only topics in it make a difference.
    let compacted = root.join("compaction").join("compactionLog");
    if !list(&compacted)?.is_empty() {
        let what = "holds compaction topics, which are not supported";
        return Err(Error::Foreign { path: compacted, what });
    }
    Ok(())
}

/// Recognises a directory that is somebody else's, and no store at all.
pub(crate) fn refuse_occupied(disk: &dyn Disk, settings: &Settings) -> Result<(), Error> {
    let root = &settings.root;
    let list = |dir: &Path| disk.list(dir).map_err(Error::io(dir));
    let is_of_store = |entry: &Entry| STORE.contains(&&*entry.name);
    let entries = list(root)?;
    if entries.iter().any(is_of_store) {
        return Ok(());
    }
    for entry in entries.iter().filter(|entry| !is_harmless(entry)) {
        let path = root.join(&entry.name);
        let inner = if entry.is_dir { list(&path)? } else { Vec::new() };
        // Stores of several brokers may lie in each other.
        let is_free = entry.is_dir && (inner.is_empty() || inner.iter().any(is_of_store));
        if !is_free && !settings.commit_log_dir.starts_with(&path) {
            let what = "holds files and nothing of a store: take an empty or a new directory";
            return Err(Error::Foreign { path: root.clone(), what });
        }
    }
    Ok(())
}

/// Of these every store that was used has some.
const STORE: [&str; 6] = ["commitlog", "consumequeue", "index", "checkpoint", "abort", "lock"];

/// May be there before a store is: what belongs to the file system or to an operator.
fn is_harmless(entry: &Entry) -> bool {
    let name = &*entry.name;
    ["config", "logs", "namesrv", "lost+found"].contains(&name)
        || [".conf", ".properties", ".log"].iter().any(|end| name.ends_with(end))
        || name.starts_with('.')
}

/// Says what Apache keeps in RocksDB beside the files, which is not read. Every broker of 5.5
/// makes the database, and leaves it empty unless it is told otherwise. Spec `since-5.3.md` 5.5.
pub(crate) fn tell_of_rocksdb(disk: &dyn Disk, settings: &Settings) -> Result<(), Error> {
    let path = settings.root.join("rocksdbstore");
    let is_filled =
        |it: &Entry| it.name.ends_with(".sst") || (it.name.ends_with(".log") && 0 < it.len);
    if disk.list(&path).map_err(Error::io(&path))?.iter().any(is_filled) {
        tracing::warn!(
            ?path,
            "the timers, transactions or keys that Apache RocketMQ keeps in \
            RocksDB here (timerRocksDBEnable, transRocksDBEnable, indexRocksDBEnable) are not read"
        );
    }
    Ok(())
}
