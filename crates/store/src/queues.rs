//! All consume queues, by topic and queue id.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use apogee_types::QueueId;
use parking_lot::RwLock;

use crate::consume_queue::ConsumeQueue;
use crate::disk::Disk;
use crate::error::Error;

type Map<K, V> = hashbrown::HashMap<K, V, foldhash::fast::RandomState>;

/// A topic's queues by id; not every id need exist.
type Row = Vec<Option<Arc<ConsumeQueue>>>;

/// Queues that exist. A topic's queues stand in a row by id, so that finding one hashes the
/// topic once and allocates nothing.
pub struct Queues {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    file_len: u64,
    topics: RwLock<Map<Arc<str>, Row>>,
}

impl Queues {
    /// Opens every queue of the store.
    pub fn open(disk: Arc<dyn Disk>, root: &Path, file_len: u64) -> Result<Self, Error> {
        let dir = root.join("consumequeue");
        let topics = RwLock::new(Map::default());
        let queues = Self { disk, dir, file_len, topics };
        for topic in queues.list(&queues.dir)? {
            for id in queues.list(&queues.dir.join(&topic))? {
                if let Some(id) = id.parse().ok().and_then(QueueId::from_wire) {
                    queues.find_or_create(&topic, id)?;
                }
            }
        }
        Ok(queues)
    }

    #[must_use]
    pub fn find(&self, topic: &str, id: QueueId) -> Option<Arc<ConsumeQueue>> {
        self.topics.read().get(topic)?.get(id.index())?.clone()
    }

    /// The queue; its files are made with its first message.
    pub fn find_or_create(&self, topic: &str, id: QueueId) -> Result<Arc<ConsumeQueue>, Error> {
        if let Some(queue) = self.find(topic, id) {
            return Ok(queue);
        }
        let dir = self.dir.join(topic).join(id.to_string());
        let (disk, name) = (Arc::clone(&self.disk), Arc::from(topic));
        let queue = Arc::new(ConsumeQueue::open(disk, &dir, self.file_len, name, id)?);
        let mut topics = self.topics.write();
        let row = topics.entry(Arc::clone(&queue.topic)).or_default();
        if row.len() <= id.index() {
            row.resize(id.index() + 1, None);
        }
        // Another thread may have opened it meanwhile; the first one counts.
        Ok(Arc::clone(row[id.index()].get_or_insert(queue)))
    }

    /// All of them in order: what is done to each happens in the same order on every run.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<ConsumeQueue>> {
        let mut all: Vec<_> = self.topics.read().values().flatten().flatten().cloned().collect();
        all.sort_by(|one, other| (&one.topic, one.id).cmp(&(&other.topic, other.id)));
        all
    }

    /// Forgets a topic and removes its files.
    pub fn remove_topic(&self, topic: &str) -> Result<(), Error> {
        self.topics.write().remove(topic);
        let dir = self.dir.join(topic);
        self.disk.remove(&dir).map_err(Error::io(&dir))
    }

    fn list(&self, dir: &Path) -> Result<Vec<String>, Error> {
        let entries = self.disk.list(dir).map_err(Error::io(dir))?;
        Ok(entries.into_iter().filter(|it| it.is_dir).map(|it| it.name).collect())
    }
}
