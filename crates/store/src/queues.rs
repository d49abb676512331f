//! All consume queues, by topic and queue id.

use std::io;
use std::num::NonZero;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::ScopedJoinHandle;

use apogee_types::QueueId;
use apogee_types::scan::{self, Name};
use parking_lot::{Mutex, RwLock};

use crate::consume_queue::{self, ConsumeQueue};
use crate::disk::Disk;
use crate::error::Error;
use crate::open_files::OpenFiles;
use crate::segments::Segments;
use crate::store::Settings;

type Map<K, V> = hashbrown::HashMap<K, V, foldhash::fast::RandomState>;

/// What is looked at when a store is opened is mostly a wait for system calls: threads share it.
/// Not if it is little, so that a simulated start does all in one order.
const TOPICS_PER_THREAD_MIN: usize = 512;
const QUEUES_PER_THREAD_MIN: usize = 4 * TOPICS_PER_THREAD_MIN;

/// A topic's queues in the order of their ids, of which any may be missing.
type Row = Vec<(QueueId, Arc<ConsumeQueue>)>;

/// Queues that exist. A topic's queues stand in a row by id, so that finding one hashes the
/// topic once and allocates nothing.
pub struct Queues {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    file_len: u64,
    open_files: Arc<OpenFiles>,
    /// Queues that are brought to the device one by one; more at once are with all else.
    flushed_singly_max: usize,
    topics: RwLock<Map<Arc<str>, Row>>,
}

/// The queues of messages that came together: to look one up takes two locked operations. To be
/// cleared after them, since it keeps queues that are deleted meanwhile.
#[derive(Default)]
pub struct Recent(Vec<Arc<ConsumeQueue>>);

impl Recent {
    /// As many as a topic has, mostly.
    const COUNT_MAX: usize = 16;

    fn find(&self, topic: &str, id: QueueId) -> Option<&Arc<ConsumeQueue>> {
        let is_it = |it: &&Arc<ConsumeQueue>| {
            it.id == id && scan::is_same(it.topic.as_bytes(), topic.as_bytes())
        };
        self.0.iter().find(is_it)
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }
}

/// A queue whose files are no row: some are lost or cut.
pub(crate) struct Damaged {
    pub topic: String,
    pub id: QueueId,
    pub error: Error,
}

impl Queues {
    /// Looks at every queue of the store. Those that are damaged are not among them before they are
    /// [mended](Self::mend); if no file at all is as long as the settings say, they are wrong.
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        settings: &Settings,
    ) -> Result<(Self, Vec<Damaged>), Error> {
        let open_max = settings.queue_files_open_max;
        let queues = Self {
            disk,
            dir: settings.root.join("consumequeue"),
            file_len: settings.queue_file_len,
            open_files: Arc::new(OpenFiles::new(open_max)),
            flushed_singly_max: open_max / 16,
            topics: RwLock::default(),
        };
        queues.remove(&queues.gone_dir())?;
        let topics = queues.list(&queues.dir)?;
        let damaged = Mutex::default();
        in_parts(&topics, TOPICS_PER_THREAD_MIN, |topics| queues.look_at(topics, &damaged))?;
        let mut damaged = damaged.into_inner();
        if let Some(at) =
            damaged.iter().position(|it| matches!(it.error, Error::WrongLength { .. }))
            && !queues.has_file_of_length(&damaged)?
        {
            return Err(damaged.swap_remove(at).error);
        }
        Ok((queues, damaged))
    }

    fn look_at(&self, topics: &[String], damaged: &Mutex<Vec<Damaged>>) -> Result<(), Error> {
        for topic in topics {
            for id in self.list(&self.dir.join(topic))? {
                let Some(id) = id.parse().ok().and_then(QueueId::from_wire) else { continue };
                match self.find_or_create(topic, id) {
                    Ok(_) => {}
                    Err(error @ (Error::WrongLength { .. } | Error::Gap { .. })) => {
                        damaged.lock().push(Damaged { topic: topic.clone(), id, error });
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// Whether a file is as long as the settings say, so that those that are not are damaged.
    fn has_file_of_length(&self, damaged: &[Damaged]) -> Result<bool, Error> {
        if self.topics.read().values().flatten().any(|(_, queue)| queue.has_file()) {
            return Ok(true);
        }
        for Damaged { topic, id, .. } in damaged {
            let dir = self.dir_of(topic, *id);
            let entries = self.disk.list(&dir).map_err(Error::io(&dir))?;
            if entries.iter().any(|it| it.len == self.row_file_len()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Makes a row of the queue's files again. What was lost is blank, to be built anew.
    pub(crate) fn mend(&self, damaged: &Damaged) -> Result<(), Error> {
        let Damaged { topic, id, .. } = damaged;
        Segments::mend(&*self.disk, &self.dir_of(topic, *id), self.row_file_len())?;
        self.find_or_create(topic, *id)?.show_all();
        Ok(())
    }

    fn dir_of(&self, topic: &str, id: QueueId) -> PathBuf {
        self.dir.join(topic).join(id.to_string())
    }

    fn row_file_len(&self) -> u64 {
        consume_queue::row_file_len(self.file_len)
    }

    /// Does something to each queue, in no order if there are many.
    pub(crate) fn each(
        &self,
        act: impl Fn(&ConsumeQueue) -> Result<(), Error> + Sync,
    ) -> Result<(), Error> {
        let all = self.all();
        in_parts(&all, QUEUES_PER_THREAD_MIN, |part| part.iter().try_for_each(|queue| act(queue)))
    }

    #[must_use]
    pub fn find(&self, topic: &str, id: QueueId) -> Option<Arc<ConsumeQueue>> {
        let topics = self.topics.read();
        let row = topics.get(&Name(topic))?;
        // Mostly none is missing.
        let place = match row.get(id.index()) {
            Some((found, _)) if *found == id => id.index(),
            _ => row.binary_search_by_key(&id, |it| it.0).ok()?,
        };
        Some(Arc::clone(&row[place].1))
    }

    /// [`find_or_create`](Self::find_or_create) for one of messages that came together.
    pub fn find_recent(
        &self,
        topic: &str,
        id: QueueId,
        recent: &mut Recent,
    ) -> Result<Arc<ConsumeQueue>, Error> {
        if let Some(queue) = recent.find(topic, id) {
            return Ok(Arc::clone(queue));
        }
        let queue = self.find_or_create(topic, id)?;
        if recent.0.len() == Recent::COUNT_MAX {
            recent.clear();
        }
        recent.0.push(Arc::clone(&queue));
        Ok(queue)
    }

    /// The queue; its files are made with its first message.
    pub fn find_or_create(&self, topic: &str, id: QueueId) -> Result<Arc<ConsumeQueue>, Error> {
        if let Some(queue) = self.find(topic, id) {
            return Ok(queue);
        }
        let dir = self.dir_of(topic, id);
        let known = self.topics.read().get_key_value(topic).map(|(name, _)| Arc::clone(name));
        let name = known.unwrap_or_else(|| Arc::from(topic));
        let (disk, open_files) = (Arc::clone(&self.disk), Arc::clone(&self.open_files));
        let queue = ConsumeQueue::open(disk, &dir, self.file_len, (name, id), open_files)?;
        let queue = Arc::new(queue);
        let mut topics = self.topics.write();
        let row = topics.entry(Arc::clone(&queue.topic)).or_default();
        // Another thread may have opened it meanwhile; the first one counts.
        let place = row.binary_search_by_key(&id, |it| it.0).unwrap_or_else(|place| {
            row.insert(place, (id, queue));
            place
        });
        Ok(Arc::clone(&row[place].1))
    }

    /// All of them in order: what is done to each happens in the same order on every run.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<ConsumeQueue>> {
        let topics = self.topics.read();
        let mut all: Vec<_> = topics.values().flatten().map(|it| Arc::clone(&it.1)).collect();
        drop(topics);
        all.sort_by(|one, other| (&one.topic, one.id).cmp(&(&other.topic, other.id)));
        all
    }

    #[must_use]
    pub fn count(&self) -> usize {
        self.topics.read().values().map(Vec::len).sum()
    }

    #[must_use]
    pub fn open_file_count(&self) -> usize {
        self.open_files.count()
    }

    /// Brings queues to the device.
    pub(crate) fn flush(&self, dirty: &[Arc<ConsumeQueue>]) -> Result<(), Error> {
        if dirty.len() <= self.flushed_singly_max {
            return dirty.iter().try_for_each(|queue| queue.flush());
        }
        // A file that has just been made costs a commit of the file system's journal, which takes
        // a millisecond; and most of many files would have to be opened again.
        let written: Vec<u64> = dirty.iter().map(|queue| queue.written()).collect();
        self.disk.sync_all(&self.dir).map_err(Error::io(&self.dir))?;
        dirty.iter().zip(written).for_each(|(queue, written)| queue.note_flushed(written));
        Ok(())
    }

    /// Forgets a topic and removes its files.
    pub fn remove_topic(&self, topic: &str) -> Result<(), Error> {
        self.remove_if(topic, |_| true).map(|_| ())
    }

    /// Removes the topics that `is_unused` names and whose queues hold nothing; which ones.
    pub fn remove_unused(&self, is_unused: &dyn Fn(&str) -> bool) -> Result<Vec<Arc<str>>, Error> {
        let mut names: Vec<_> = self.topics.read().keys().map(Arc::clone).collect();
        names.retain(|topic| is_unused(topic));
        names.sort();
        let mut removed = Vec::new();
        for topic in names {
            let is_empty = |row: &Row| row.iter().all(|(_, queue)| queue.is_empty());
            let may_go = |row: Option<&Row>| row.is_some_and(is_empty) && is_unused(&topic);
            if self.remove_if(&topic, may_go)? {
                removed.push(topic);
            }
        }
        Ok(removed)
    }

    /// Forgets a topic and removes its files, if `may_go` says so of its queues.
    fn remove_if(&self, topic: &str, may_go: impl Fn(Option<&Row>) -> bool) -> Result<bool, Error> {
        let (dir, gone) = (self.dir.join(topic), self.gone_dir().join(topic));
        self.remove(&gone)?;
        {
            // Who creates the topic meanwhile does so before it looks for its queues: either we see
            // that, or it finds none, nor files, and makes them anew.
            let mut topics = self.topics.write();
            if !may_go(topics.get(&Name(topic))) {
                return Ok(false);
            }
            let row = topics.remove(topic);
            row.iter().flatten().for_each(|(_, queue)| queue.remove());
            // All at once: of a queue that lacks files between others no start makes sense.
            match self.disk.rename(&dir, &gone) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
                renamed => renamed.map_err(Error::io(&dir))?,
            }
        }
        self.remove(&gone)?;
        Ok(true)
    }

    /// Where topics lie that are being removed.
    fn gone_dir(&self) -> PathBuf {
        self.dir.with_extension("gone")
    }

    fn remove(&self, path: &Path) -> Result<(), Error> {
        self.disk.remove(path).map_err(Error::io(path))
    }

    fn list(&self, dir: &Path) -> Result<Vec<String>, Error> {
        let entries = self.disk.list(dir).map_err(Error::io(dir))?;
        Ok(entries.into_iter().filter(|it| it.is_dir).map(|it| it.name).collect())
    }
}

/// Acts on parts of a list, on as many threads as there are processors, but none for less than
/// `part_min`.
fn in_parts<T: Sync>(
    list: &[T],
    part_min: usize,
    act: impl Fn(&[T]) -> Result<(), Error> + Sync,
) -> Result<(), Error> {
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    let part_len = list.len().div_ceil(processors).max(part_min);
    if list.len() <= part_len {
        return act(list);
    }
    std::thread::scope(|scope| {
        let parts = list.chunks(part_len).map(|part| scope.spawn(|| act(part)));
        let parts: Vec<_> = parts.collect();
        let join =
            |part: ScopedJoinHandle<'_, _>| part.join().unwrap_or_else(|it| resume_unwind(it));
        parts.into_iter().try_for_each(join)
    })
}
