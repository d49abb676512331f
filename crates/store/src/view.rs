//! A store that is only looked at, by `verify` and `dump`: nothing in its directory is written, and
//! it may be read-only. Lengths of files are taken from the files.

use std::collections::BTreeMap;
use std::io;
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use apogee_types::record::Record;
use apogee_types::{LogOffset, Millis, QueueId, QueueOffset, SystemClock};

use crate::checkpoint::Checkpoint;
use crate::commit_log::CommitLog;
use crate::consume_queue::ConsumeQueue;
use crate::disk::{Disk, RealDisk};
use crate::error::Error;
use crate::frozen::Frozen;
use crate::index::audit::sizes;
use crate::open_files::OpenFiles;
use crate::store::Settings;
use crate::walk::{Step, walk};
use crate::{owner, recovery};

/// A queue, or why it cannot be read.
pub(crate) type Opened = Result<Arc<ConsumeQueue>, Error>;

/// A store as its files show it.
pub struct View {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) settings: Settings,
    pub(crate) log: CommitLog,
    /// By topic and queue id.
    pub(crate) queues: BTreeMap<Arc<str>, BTreeMap<QueueId, Opened>>,
    /// As it stands in the file.
    pub(crate) checkpoint: Checkpoint,
    /// The last stop was not clean, or has not come yet.
    pub(crate) is_unclean: bool,
    /// A broker runs on it.
    pub(crate) is_in_use: bool,
    _lock: Option<Box<dyn Send + Sync>>,
}

impl View {
    /// Looks at the store in `root`, whose commit log lies in `commit_log_dir`. One that a broker
    /// runs on is [`Error::Locked`], unless `live`; while the view lives, no broker can start.
    pub fn open(root: &Path, commit_log_dir: Option<&Path>, live: Live) -> Result<Self, Error> {
        let disk: Arc<dyn Disk> = Arc::new(Frozen::new(root));
        let settings = settings_of(root, commit_log_dir)?;
        owner::refuse_foreign(&*disk, &settings)?;
        let path = root.join("lock");
        let lock = match disk.lock(&path) {
            Ok(lock) => Some(lock),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => match live {
                Live::Refuse => return Err(Error::Locked { path }),
                Live::Allow => None,
            },
            Err(error) => return Err(Error::io(path)(error)),
        };
        let abort = root.join("abort");
        let is_unclean = disk.read(&abort).map_err(Error::io(&abort))?.is_some();
        let frozen_log = Arc::new(Frozen::new(&settings.commit_log_dir));
        Ok(Self {
            log: CommitLog::open(frozen_log, Arc::new(SystemClock), &settings)?,
            queues: open_queues(&disk, &settings)?,
            checkpoint: Checkpoint::read(&*disk, root)?,
            is_unclean,
            is_in_use: lock.is_none(),
            disk,
            settings,
            _lock: lock,
        })
    }

    /// How the store was made, as far as its files tell.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    #[must_use]
    pub fn is_in_use(&self) -> bool {
        self.is_in_use
    }

    /// The first byte of the log, and the first after its last file.
    #[must_use]
    pub fn log_bounds(&self) -> Range<u64> {
        let (start, after) = self.log.segments.bounds();
        start..after
    }

    /// Where the log ends, as far as the queues tell.
    #[must_use]
    pub fn end_hint(&self) -> LogOffset {
        let Range { start, end } = self.log_bounds();
        let queued = self.readable_queues().map(|queue| queue.log_end().0).max();
        LogOffset(queued.filter(|queued| (start..end).contains(queued)).unwrap_or(end))
    }

    /// Walks through the log from `from`, where a record starts, until it ends or `look` says so;
    /// where that is.
    pub fn walk(
        &self,
        from: LogOffset,
        look: &mut dyn FnMut(Step<'_>) -> ControlFlow<()>,
    ) -> LogOffset {
        walk(&self.log.segments, from, self.intact(), look)
    }

    /// The start of the last segment that began before `ms`: those before it hold nothing newer.
    #[must_use]
    pub fn segment_before(&self, ms: Millis) -> LogOffset {
        let first = LogOffset(self.log_bounds().start);
        recovery::last_segment(&self.log, ms.saturating_sub(1)).unwrap_or(first)
    }

    /// The messages of a queue with their offsets from `offsets`, read through the queue. An error
    /// if it cannot be read, or names something else than its messages.
    pub fn read_queue(
        &self,
        (topic, id): (&str, QueueId),
        offsets: Range<QueueOffset>,
        look: &mut dyn FnMut(&Record<'_>) -> ControlFlow<()>,
    ) -> Result<(), String> {
        let queue = match self.queue(topic, id) {
            Some(Ok(queue)) => queue,
            Some(Err(error)) => return Err(error.to_string()),
            None => return Err(format!("there is no consume queue {topic} {id}")),
        };
        let log_min = self.log.segments.bounds().0;
        let mut wrong = None;
        let from = offsets.start.max(queue.bounds().start);
        let scanned = queue.scan(from, |offset, unit| {
            if offsets.end <= offset {
                return false;
            }
            let Some(unit) = unit.filter(|unit| log_min <= unit.at.0) else { return true };
            if !recovery::holds(&self.log, queue, offset, &unit) {
                wrong = Some(offset);
                return false;
            }
            let Some(bytes) = self.log.slice(&unit) else { return true };
            Record::parse(&bytes).is_ok_and(|record| look(&record).is_continue())
        });
        scanned.map_err(|error| error.to_string())?;
        match wrong {
            Some(offset) => Err(format!("unit {offset} of {topic} {id} names no message of it")),
            None => Ok(()),
        }
    }

    /// The first offset of a queue whose message was stored at or after `ms`.
    #[must_use]
    pub fn offset_by_time(&self, topic: &str, id: QueueId, ms: Millis) -> Option<QueueOffset> {
        let queue = self.queue(topic, id)?.as_ref().ok()?;
        let is_before = |offset: u64| {
            let unit = queue.unit(QueueOffset(offset)).ok().flatten();
            let bytes = unit.and_then(|unit| self.log.slice(&unit));
            let stored_ms = bytes.and_then(|it| Record::parse(&it).ok().map(|it| it.stored_ms));
            stored_ms.is_none_or(|stored_ms| stored_ms < ms)
        };
        let bounds = queue.bounds();
        let (mut low, mut high) = (bounds.start.0, bounds.end.0);
        while low < high {
            let middle = low + (high - low) / 2;
            if is_before(middle) { low = middle + 1 } else { high = middle }
        }
        Some(QueueOffset(low))
    }

    pub(crate) fn queue(&self, topic: &str, id: QueueId) -> Option<&Opened> {
        self.queues.get(topic)?.get(&id)
    }

    pub(crate) fn readable_queues(&self) -> impl Iterator<Item = &Arc<ConsumeQueue>> {
        self.queues.values().flat_map(BTreeMap::values).filter_map(|queue| queue.as_ref().ok())
    }

    /// The checkpoint, if it speaks of this log.
    pub(crate) fn believed(&self) -> Option<Checkpoint> {
        recovery::believe(self.checkpoint, &self.log)
    }

    /// What is no record below is damage, not the log's end: the checkpoint, or after a stop in
    /// order the queues, know of a record there, or a later segment begins with one.
    fn intact(&self) -> LogOffset {
        let later = recovery::last_segment(&self.log, Millis::MAX).unwrap_or_default();
        let noted = self.believed().unwrap_or_default().queues_at;
        let queued = self.readable_queues().map(|queue| queue.log_end()).max();
        let queued = queued.filter(|_| !self.is_unclean && !self.is_in_use).unwrap_or_default();
        later.max(noted).max(queued.min(LogOffset(self.log_bounds().end)))
    }
}

/// What to do about a broker that runs on the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Live {
    Refuse,
    Allow,
}

/// How the store in `root` was made: the lengths that most of its files have.
fn settings_of(root: &Path, commit_log_dir: Option<&Path>) -> Result<Settings, Error> {
    let mut settings = Settings::at(root);
    if let Some(dir) = commit_log_dir {
        settings.commit_log_dir = dir.to_owned();
    }
    let log_lens = file_lens(&settings.commit_log_dir)?;
    if log_lens.is_empty() && dirs(root)?.iter().all(|dir| !dir.ends_with("commitlog")) {
        let what = "holds no store: it has no commitlog with files";
        return Err(Error::Foreign { path: root.to_owned(), what });
    }
    settings.segment_len = most_frequent(log_lens).unwrap_or(settings.segment_len);
    let mut queue_lens = Vec::new();
    for topic in dirs(&root.join("consumequeue"))? {
        for queue in dirs(&topic)? {
            queue_lens.extend(file_lens(&queue)?);
        }
    }
    settings.queue_file_len = most_frequent(queue_lens).unwrap_or(settings.queue_file_len);
    if let Some(counts) = sizes(root)? {
        (settings.index_slot_count, settings.index_entry_count) = counts;
    }
    Ok(settings)
}

fn open_queues(
    disk: &Arc<dyn Disk>,
    settings: &Settings,
) -> Result<BTreeMap<Arc<str>, BTreeMap<QueueId, Opened>>, Error> {
    let mut queues: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
    let open_files = Arc::new(OpenFiles::new(settings.queue_files_open_max));
    for topic_dir in dirs(&settings.root.join("consumequeue"))? {
        let topic: Arc<str> = name(&topic_dir).into();
        for dir in dirs(&topic_dir)? {
            let Some(id) = name(&dir).parse().ok().and_then(QueueId::from_wire) else { continue };
            let (disk, len) = (Arc::clone(disk), settings.queue_file_len);
            let place = (Arc::clone(&topic), id);
            let queue = ConsumeQueue::open(disk, &dir, len, place, Arc::clone(&open_files));
            queues.entry(Arc::clone(&topic)).or_default().insert(id, queue.map(Arc::new));
        }
    }
    Ok(queues)
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

pub(crate) fn dirs(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = RealDisk.list(dir).map_err(Error::io(dir))?;
    Ok(entries.into_iter().filter(|it| it.is_dir).map(|it| dir.join(it.name)).collect())
}

/// Lengths of the files in a directory but for empty ones, which a crash leaves.
fn file_lens(dir: &Path) -> Result<Vec<u64>, Error> {
    let entries = RealDisk.list(dir).map_err(Error::io(dir))?;
    let files = entries.into_iter().filter(|it| !it.is_dir && it.len != 0);
    Ok(files.map(|it| it.len).collect())
}

/// Of several that are equally frequent the largest: files are cut short, not made longer.
#[must_use]
pub fn most_frequent(lens: Vec<u64>) -> Option<u64> {
    let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
    for len in lens {
        *counts.entry(len).or_default() += 1;
    }
    counts.into_iter().max_by_key(|(len, count)| (*count, *len)).map(|(len, _)| len)
}
