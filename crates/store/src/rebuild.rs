//! Builds consume queues and index anew from the commit log, which is only read: a store is opened
//! beside the old one, over the same log, and recovery finds that queues and index lack everything.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use apogee_types::{LogOffset, SystemClock};

use crate::checkpoint::{Checkpoint, CheckpointFile};
use crate::disk::{Disk, RealDisk};
use crate::error::Error;
use crate::frozen::Frozen;
use crate::owner;
use crate::queue_ends::QueueEnds;
use crate::store::{REBUILDING, Recovery, Settings, Store};
use crate::verify::Report;
use crate::view::{View, dirs};

const QUEUES: &str = "consumequeue";
const INDEX: &str = "index";
/// Where the new queues and index grow; what a repair that was killed left is removed.
const STAGE: &str = "repair.tmp";

/// What becomes of the old queues and index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Old {
    /// Their names get this at the end.
    Aside(String),
    /// Deleted before the new ones are built: saves their space.
    Delete,
}

/// What is to be built.
pub struct Plan {
    settings: Settings,
    /// Where the last record of the log starts.
    last_at: LogOffset,
    /// Queues without a message in the log, relative to `consumequeue`: they keep their end, which
    /// the log does not tell.
    expired: Vec<PathBuf>,
    /// Topics that are not built: their queues were deleted, and their messages are still there.
    deleted: BTreeSet<String>,
}

impl Plan {
    /// To build what `view` shows and `report` tells of anew, as `settings` say.
    #[must_use]
    pub fn new(view: &View, settings: Settings, report: &Report) -> Self {
        let log_min = LogOffset(view.log_bounds().start);
        let is_expired = |end: LogOffset| LogOffset(0) < end && end <= log_min;
        let expired = view.readable_queues().filter(|queue| is_expired(queue.log_end()));
        let expired = expired.map(|it| Path::new(&*it.topic).join(it.id.to_string())).collect();
        let deleted = report.deleted_topics.clone();
        Self { settings, last_at: report.last_at, expired, deleted }
    }

    /// Builds; `reached` tells meanwhile how far in the log it is. The commit log stays as it is,
    /// to the byte. [`Error::Locked`] if a broker runs on the store.
    pub fn run(&self, old: &Old, reached: Arc<AtomicU64>) -> Result<Recovery, Error> {
        let root = &self.settings.root;
        let _lock = owner::lock(&RealDisk, &self.settings)?;
        let stage = root.join(STAGE);
        remove(&stage)?;
        if *old == Old::Delete {
            remove(&root.join(INDEX))?;
            for queue in queue_dirs(&root.join(QUEUES))? {
                if !self.expired.contains(&queue) {
                    remove(&root.join(QUEUES).join(queue))?;
                }
            }
        }
        let recovery = self.build(&stage, reached)?;
        for topic in &self.deleted {
            remove(&stage.join(QUEUES).join(topic))?;
        }
        if let Old::Aside(suffix) = old {
            self.put_aside(suffix)?;
        }
        for queue in queue_dirs(&stage.join(QUEUES))? {
            rename(&stage.join(QUEUES).join(&queue), &root.join(QUEUES).join(&queue))?;
        }
        if !RealDisk.list(&stage.join(INDEX)).map_err(Error::io(&stage))?.is_empty() {
            rename(&stage.join(INDEX), &root.join(INDEX))?;
        }
        QueueEnds::remove(&RealDisk, root)?;
        // Last: from now on the next start believes what was built.
        let built = CheckpointFile::open(&RealDisk, &stage)?.load();
        CheckpointFile::open(&RealDisk, root)?.save(&built)?;
        remove(&root.join(REBUILDING))?;
        remove(&stage)?;
        Ok(recovery)
    }

    fn build(&self, stage: &Path, reached: Arc<AtomicU64>) -> Result<Recovery, Error> {
        // Bytes before the last record that are none are damage, and not the end of the log.
        let known = Checkpoint { queues_at: self.last_at, ..Checkpoint::default() };
        CheckpointFile::open(&RealDisk, stage)?.save(&known)?;
        let disk = Arc::new(Frozen::watched(&self.settings.commit_log_dir, reached));
        let settings = Settings { root: stage.to_owned(), ..self.settings.clone() };
        let store = Store::open(disk, Arc::new(SystemClock), settings)?;
        // What the checkpoint speaks of must be on the device.
        let (start, after) = store.log.segments.bounds();
        store.log.segments.sync(start, after)?;
        store.close()?;
        Ok(store.recovery())
    }

    fn put_aside(&self, suffix: &str) -> Result<(), Error> {
        let root = &self.settings.root;
        let aside = |name: &str| root.join(format!("{name}.{suffix}"));
        for name in [QUEUES, INDEX] {
            if RealDisk.list(root).map_err(Error::io(root))?.iter().any(|it| it.name == name) {
                rename(&root.join(name), &aside(name))?;
            }
        }
        for queue in &self.expired {
            rename(&aside(QUEUES).join(queue), &root.join(QUEUES).join(queue))?;
        }
        Ok(())
    }
}

/// `topic/id` of each queue.
fn queue_dirs(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut found = Vec::new();
    for topic in dirs(dir)? {
        for queue in dirs(&topic)? {
            found.push(queue.strip_prefix(dir).expect("it lies below").to_owned());
        }
    }
    Ok(found)
}

fn rename(from: &Path, to: &Path) -> Result<(), Error> {
    let dir = to.parent().expect("it lies below the root");
    RealDisk::make_dir(dir).map_err(Error::io(dir))?;
    RealDisk.rename(from, to).map_err(Error::io(from))
}

fn remove(path: &Path) -> Result<(), Error> {
    RealDisk.remove(path).map_err(Error::io(path))
}
