//! Where all queues began and ended at a stop in order, and what files the index had: the file
//! `queue-ends`, ours. By it the next start sees what is lost since, without reading the log.
//!
//! ```text
//!  2, log offset of the last record, checksum of the lines that follow
//!  queue id, first queue offset, queue offset of the end, topic            for each queue
//!  `index`, name, log offset of the last entry                             for each index file
//! ```
//!
//! Text. It is there only while nobody uses the store: a topic that is deleted must not come back.
//! Older releases leave out the 2, the first queue offsets and the index.

use std::fmt::Write;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use apogee_types::{LogOffset, QueueId, QueueOffset, record};

use crate::consume_queue::ConsumeQueue;
use crate::disk::Disk;
use crate::error::Error;

const NAME: &str = "queue-ends";

const VERSION: &str = "2";

/// What the file says.
pub(crate) struct QueueEnds {
    /// Where the record starts that was the last one then.
    pub last_at: LogOffset,
    is_old: bool,
    text: String,
}

/// What a queue had.
pub(crate) struct Had<'a> {
    pub topic: &'a str,
    pub id: QueueId,
    /// `None` if it is not known.
    pub first: Option<QueueOffset>,
    pub end: QueueOffset,
}

impl QueueEnds {
    pub fn save(
        disk: &dyn Disk,
        root: &Path,
        last_at: LogOffset,
        queues: &[Arc<ConsumeQueue>],
        index_files: &[(u64, LogOffset)],
    ) -> Result<(), Error> {
        let mut lines = String::new();
        for queue in queues.iter().filter(|queue| 0 < queue.bounds().end.0) {
            let (id, Range { start, end }, topic) = (queue.id, queue.bounds(), &queue.topic);
            writeln!(lines, "{id} {start} {end} {topic}").expect("a string takes all");
        }
        for (number, end_at) in index_files {
            writeln!(lines, "index {number} {end_at}").expect("a string takes all");
        }
        let crc = record::body_crc(lines.as_bytes());
        let path = root.join(NAME);
        let text = format!("{VERSION} {last_at} {crc}\n{lines}");
        disk.replace(&path, text.as_bytes()).map_err(Error::io(path))
    }

    /// `None` if there is no file, or a damaged one.
    pub fn read(disk: &dyn Disk, root: &Path) -> Result<Option<Self>, Error> {
        let path = root.join(NAME);
        let bytes = disk.read(&path).map_err(Error::io(path))?;
        let parse = |text: String| {
            let (first, lines) = text.split_once('\n')?;
            let words: Vec<_> = first.split(' ').collect();
            let (is_old, last_at, crc) = match words[..] {
                [VERSION, last_at, crc] => (false, last_at, crc),
                [last_at, crc] => (true, last_at, crc),
                _ => return None,
            };
            let is_whole = crc.parse() == Ok(record::body_crc(lines.as_bytes()));
            let last_at = LogOffset(last_at.parse().ok()?);
            is_whole.then(|| Self { last_at, is_old, text: lines.to_owned() })
        };
        Ok(bytes.and_then(|bytes| String::from_utf8(bytes).ok()).and_then(parse))
    }

    /// From now on nothing is known.
    pub fn remove(disk: &dyn Disk, root: &Path) -> Result<(), Error> {
        let path = root.join(NAME);
        disk.remove(&path).map_err(Error::io(path))
    }

    /// What each queue had.
    pub fn queues(&self) -> impl Iterator<Item = Had<'_>> {
        self.text.lines().filter_map(|line| {
            let mut words = line.splitn(if self.is_old { 3 } else { 4 }, ' ');
            let id = QueueId::from_wire(words.next()?.parse().ok()?)?;
            let mut offset = || Some(QueueOffset(words.next()?.parse().ok()?));
            let first = if self.is_old { None } else { Some(offset()?) };
            let end = offset()?;
            Some(Had { topic: words.next()?, id, first, end })
        })
    }

    /// The names of the files that the index had, as numbers, and where their last entries lead.
    pub fn index_files(&self) -> impl Iterator<Item = (u64, LogOffset)> {
        self.text.lines().filter_map(|line| {
            let (number, end_at) = line.strip_prefix("index ")?.split_once(' ')?;
            Some((number.parse().ok()?, LogOffset(end_at.parse().ok()?)))
        })
    }
}
