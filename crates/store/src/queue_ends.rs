//! Where all queues ended at a stop in order: the file `queue-ends`, ours. By it the next start
//! sees what queues have lost since, without reading the log.
//!
//! ```text
//!  log offset of the last record, checksum of the lines that follow
//!  queue id, queue offset, topic                                          for each queue
//! ```
//!
//! Text. It is there only while nobody uses the store: a topic that is deleted must not come back.

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use apogee_types::{LogOffset, QueueId, QueueOffset, record};

use crate::consume_queue::ConsumeQueue;
use crate::disk::Disk;
use crate::error::Error;

const NAME: &str = "queue-ends";

/// What the file says.
pub(crate) struct QueueEnds {
    /// Where the record starts that was the last one then.
    pub last_at: LogOffset,
    text: String,
}

impl QueueEnds {
    pub fn save(
        disk: &dyn Disk,
        root: &Path,
        last_at: LogOffset,
        queues: &[Arc<ConsumeQueue>],
    ) -> Result<(), Error> {
        let mut lines = String::new();
        for queue in queues.iter().filter(|queue| 0 < queue.bounds().end.0) {
            let (id, end, topic) = (queue.id, queue.bounds().end, &queue.topic);
            writeln!(lines, "{id} {end} {topic}").expect("a string takes all");
        }
        let crc = record::body_crc(lines.as_bytes());
        let path = root.join(NAME);
        disk.replace(&path, format!("{last_at} {crc}\n{lines}").as_bytes()).map_err(Error::io(path))
    }

    /// `None` if there is no file, or a damaged one.
    pub fn read(disk: &dyn Disk, root: &Path) -> Result<Option<Self>, Error> {
        let path = root.join(NAME);
        let bytes = disk.read(&path).map_err(Error::io(path))?;
        let parse = |text: String| {
            let (first, lines) = text.split_once('\n')?;
            let (last_at, crc) = first.split_once(' ')?;
            let is_whole = crc.parse() == Ok(record::body_crc(lines.as_bytes()));
            let last_at = LogOffset(last_at.parse().ok()?);
            is_whole.then(|| Self { last_at, text: lines.to_owned() })
        };
        Ok(bytes.and_then(|bytes| String::from_utf8(bytes).ok()).and_then(parse))
    }

    /// From now on nothing is known.
    pub fn remove(disk: &dyn Disk, root: &Path) -> Result<(), Error> {
        let path = root.join(NAME);
        disk.remove(&path).map_err(Error::io(path))
    }

    /// Topic, id and end of each queue.
    pub fn iter(&self) -> impl Iterator<Item = (&str, QueueId, QueueOffset)> {
        self.text.lines().filter_map(|line| {
            let mut words = line.splitn(3, ' ');
            let id = QueueId::from_wire(words.next()?.parse().ok()?)?;
            let end = QueueOffset(words.next()?.parse().ok()?);
            Some((words.next()?, id, end))
        })
    }
}
