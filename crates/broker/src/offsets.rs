//! How far each group has come in each queue. Spec `broker.md` 3.

use std::collections::BTreeMap;
use std::sync::Arc;

use apogee_types::config::DataVersion;
use apogee_types::{Millis, QueueId};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::Map;

/// Commits between two changes of the table's version; upstream's
/// `consumerOffsetUpdateVersionStep`.
const VERSION_STEP: u64 = 500;

/// The table as `consumerOffset.json` holds it: `topic@group` -> queue -> next offset.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OffsetTable {
    pub data_version: DataVersion,
    pub offset_table: BTreeMap<String, BTreeMap<i32, i64>>,
}

/// Committed offsets by group, topic and queue.
pub struct Offsets {
    table: Mutex<Table>,
}

/// Offsets of one group in one topic.
#[derive(Default)]
struct Progress {
    committed: BTreeMap<QueueId, i64>,
    /// Where the last pull went on; for views only, not kept.
    pulled: BTreeMap<QueueId, i64>,
    /// Set by an operator, to be taken by the next pull; commits do not count until then.
    reset: BTreeMap<QueueId, i64>,
}

impl Progress {
    /// Whether the group has been here as a group: a pull alone, as of a tool, says nothing.
    fn has_offsets(&self) -> bool {
        !self.committed.is_empty() || !self.reset.is_empty()
    }
}

#[derive(Default)]
struct Table {
    /// By group, then topic: so both are looked up without joining them.
    groups: Map<Arc<str>, Map<Arc<str>, Progress>>,
    version: DataVersion,
    commits: u64,
    is_dirty: bool,
}

/// What became of a commit.
#[derive(Debug, PartialEq, Eq)]
pub enum Committed {
    Stored,
    /// An operator has reset the queue's offset; the group has not read from there yet.
    ResetPending,
}

impl Offsets {
    #[must_use]
    pub fn new(file: &OffsetTable) -> Self {
        let mut table = Table { version: file.data_version, ..Table::default() };
        for (key, queues) in &file.offset_table {
            // `topic@group`; a broadcast key has a third part that stays with the group.
            let Some((topic, group)) = key.split_once('@') else { continue };
            let progress = table.progress(group, topic);
            let queues = queues.iter().filter_map(|(id, at)| Some((QueueId::from_wire(*id)?, *at)));
            progress.committed.extend(queues);
        }
        Self { table: Mutex::new(table) }
    }

    /// Stores a commit, also one that goes back. Negative offsets mean "none yet": Go clients
    /// send them.
    pub fn commit(
        &self,
        group: &str,
        topic: &str,
        queue: QueueId,
        offset: i64,
        now: Millis,
    ) -> Committed {
        let mut table = self.table.lock();
        let progress = table.progress(group, topic);
        if progress.reset.contains_key(&queue) {
            return Committed::ResetPending;
        }
        if progress.committed.insert(queue, offset) != Some(offset) {
            table.changed(now);
        }
        Committed::Stored
    }

    /// The committed offset; `None` if there is none, or a negative one.
    #[must_use]
    pub fn committed(&self, group: &str, topic: &str, queue: QueueId) -> Option<i64> {
        let table = self.table.lock();
        let progress = table.groups.get(group)?.get(topic)?;
        let reset = progress.reset.get(&queue);
        reset.or_else(|| progress.committed.get(&queue)).copied().filter(|offset| 0 <= *offset)
    }

    /// Notes where a pull went on.
    pub fn pulled(&self, group: &str, topic: &str, queue: QueueId, next: i64) {
        self.table.lock().progress(group, topic).pulled.insert(queue, next);
    }

    #[must_use]
    pub fn last_pulled(&self, group: &str, topic: &str, queue: QueueId) -> Option<i64> {
        let table = self.table.lock();
        table.groups.get(group)?.get(topic)?.pulled.get(&queue).copied()
    }

    /// An operator moves the group: the next pull of the queue is told so.
    pub fn reset(&self, group: &str, topic: &str, queue: QueueId, offset: i64, now: Millis) {
        let mut table = self.table.lock();
        let progress = table.progress(group, topic);
        progress.reset.insert(queue, offset);
        progress.committed.insert(queue, offset);
        table.changed(now);
    }

    /// Takes, once, the offset to which an operator moved the group.
    #[must_use]
    pub fn take_reset(&self, group: &str, topic: &str, queue: QueueId) -> Option<i64> {
        let mut table = self.table.lock();
        table.groups.get_mut(group)?.get_mut(topic)?.reset.remove(&queue)
    }

    /// The topics in which the group has offsets.
    #[must_use]
    pub fn topics_of(&self, group: &str) -> Vec<Arc<str>> {
        let table = self.table.lock();
        let mut topics: Vec<_> = table
            .groups
            .get(group)
            .into_iter()
            .flatten()
            .filter(|(_, it)| it.has_offsets())
            .map(|(topic, _)| Arc::clone(topic))
            .collect();
        topics.sort();
        topics
    }

    /// The groups that have offsets in the topic.
    #[must_use]
    pub fn groups_of(&self, topic: &str) -> Vec<Arc<str>> {
        let table = self.table.lock();
        let has_topic = |(group, topics): (&Arc<str>, &Map<Arc<str>, Progress>)| {
            topics.get(topic)?.has_offsets().then(|| Arc::clone(group))
        };
        let mut groups: Vec<_> = table.groups.iter().filter_map(has_topic).collect();
        groups.sort();
        groups
    }

    pub fn remove_topic(&self, topic: &str, now: Millis) {
        let mut table = self.table.lock();
        table.groups.values_mut().for_each(|topics| drop(topics.remove(topic)));
        table.changed(now);
    }

    pub fn remove_group(&self, group: &str, now: Millis) {
        let mut table = self.table.lock();
        table.groups.remove(group);
        table.changed(now);
    }

    /// The whole table, if it changed since the last call. Who cannot write it says so with
    /// [`mark_dirty`](Self::mark_dirty).
    #[must_use]
    pub fn take_dirty(&self) -> Option<OffsetTable> {
        let is_dirty = std::mem::take(&mut self.table.lock().is_dirty);
        is_dirty.then(|| self.snapshot())
    }

    /// The file does not have the whole table.
    pub fn mark_dirty(&self) {
        self.table.lock().is_dirty = true;
    }

    /// The whole table, as the file holds it.
    #[must_use]
    pub fn snapshot(&self) -> OffsetTable {
        let table = self.table.lock();
        let mut file = OffsetTable { data_version: table.version, ..OffsetTable::default() };
        for (group, topics) in &table.groups {
            for (topic, progress) in topics.iter().filter(|(_, p)| !p.committed.is_empty()) {
                let queues = progress.committed.iter().map(|(id, at)| (id.to_wire(), *at));
                file.offset_table.insert(format!("{topic}@{group}"), queues.collect());
            }
        }
        file
    }
}

impl Table {
    fn progress(&mut self, group: &str, topic: &str) -> &mut Progress {
        crate::entry(crate::entry(&mut self.groups, group), topic)
    }

    fn changed(&mut self, now: Millis) {
        self.is_dirty = true;
        self.commits += 1;
        if self.commits.is_multiple_of(VERSION_STEP) {
            self.version = self.version.next(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const Q: QueueId = QueueId::from_wire(3).unwrap();

    #[test]
    fn commits_are_kept_and_written_in_the_form_of_the_file() {
        let offsets = Offsets::new(&OffsetTable::default());
        offsets.commit("g", "t", Q, 7, 0);
        offsets.commit("g", "t", Q, 5, 0);
        assert_eq!(offsets.committed("g", "t", Q), Some(5));
        let file = offsets.take_dirty().unwrap();
        let text = serde_json::to_string(&file.offset_table).unwrap();
        assert_eq!(text, r#"{"t@g":{"3":5}}"#);
        assert!(offsets.take_dirty().is_none());
        assert_eq!(Offsets::new(&file).committed("g", "t", Q), Some(5));
    }

    #[test]
    fn a_negative_commit_means_none() {
        let offsets = Offsets::new(&OffsetTable::default());
        offsets.commit("g", "t", Q, -1, 0);
        assert_eq!(offsets.committed("g", "t", Q), None);
    }

    #[test]
    fn after_a_reset_commits_do_not_count_until_it_was_taken() {
        let offsets = Offsets::new(&OffsetTable::default());
        offsets.reset("g", "t", Q, 2, 0);
        assert_eq!(offsets.commit("g", "t", Q, 9, 0), Committed::ResetPending);
        assert_eq!(offsets.committed("g", "t", Q), Some(2));
        assert_eq!(offsets.take_reset("g", "t", Q), Some(2));
        assert_eq!(offsets.take_reset("g", "t", Q), None);
        assert_eq!(offsets.commit("g", "t", Q, 9, 0), Committed::Stored);
    }
}
