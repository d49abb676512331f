//! The topics of this broker: their configuration, one owner.
//!
//! Rules of automatic creation: spec `broker.md` 1.3; system topics: `messages.md` 8.1.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use apogee_types::Millis;
use apogee_types::config::{DataVersion, Perm, TopicConfig};
use apogee_types::names;
use apogee_types::scan::Name;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};

use crate::created::Created;
use crate::error::Error;

/// Sys flag of a topic that units share; upstream's `TopicSysFlag`.
const UNIT: i32 = 1;
const UNIT_SUB: i32 = 2;

/// The table as `topics.json` and the registration hold it.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicTable {
    pub data_version: DataVersion,
    pub topic_config_table: BTreeMap<Arc<str>, Arc<TopicConfig>>,
}

/// What a send says about a topic that may not exist yet.
#[derive(Debug, Clone, Copy)]
pub struct Template<'a> {
    pub topic: &'a str,
    /// The topic whose configuration is inherited, normally `TBW102`.
    pub default_topic: &'a str,
    pub queue_count: i32,
    pub unit_mode: bool,
}

/// The table, and the same topics by the hash of their names: each send looks for one.
struct Table {
    file: TopicTable,
    by_name: HashMap<Arc<str>, Arc<TopicConfig>, RandomState>,
}

impl Table {
    fn put(&mut self, name: Arc<str>, config: Arc<TopicConfig>) {
        self.by_name.insert(Arc::clone(&name), Arc::clone(&config));
        self.file.topic_config_table.insert(name, config);
    }

    fn remove(&mut self, topic: &str) -> Option<Arc<str>> {
        self.by_name.remove(topic);
        self.file.topic_config_table.remove_entry(topic).map(|(name, _)| name)
    }

    fn changed_at(&mut self, now: Millis) {
        self.file.data_version = self.file.data_version.next(now);
    }
}

/// Topics by name.
///
/// `table` is what readers see; `changed` tells what was changed since the last
/// [`take_changed`](Self::take_changed), for the registration and the file.
pub struct Topics {
    table: RwLock<Table>,
    changed: Mutex<Vec<Arc<str>>>,
    /// Mirrors whether `changed` holds something.
    has_changed: AtomicBool,
    /// `autoCreateTopicEnable`.
    auto_create: bool,
    created: Arc<Created>,
}

impl Topics {
    /// Starts with `system` topics; those of `file` win over them.
    #[must_use]
    pub fn new(
        system: Vec<TopicConfig>,
        file: TopicTable,
        auto_create: bool,
        created: Arc<Created>,
    ) -> Self {
        let empty = TopicTable { data_version: file.data_version, ..TopicTable::default() };
        let mut table = Table { file: empty, by_name: HashMap::default() };
        let system = system.into_iter().map(|topic| (Arc::clone(&topic.topic_name), topic.into()));
        let topics = system.chain(file.topic_config_table);
        topics.for_each(|(name, topic)| table.put(name, topic));
        let changed = Mutex::new(table.file.topic_config_table.keys().cloned().collect());
        let has_changed = AtomicBool::new(true);
        Self { table: RwLock::new(table), changed, has_changed, auto_create, created }
    }

    #[must_use]
    pub fn find(&self, topic: &str) -> Option<Arc<TopicConfig>> {
        self.table.read().by_name.get(&Name(topic)).cloned()
    }

    pub fn expect(&self, topic: &str) -> Result<Arc<TopicConfig>, Error> {
        self.find(topic).ok_or_else(|| Error::NoSuchTopic { topic: topic.to_owned() })
    }

    #[must_use]
    pub fn table(&self) -> TopicTable {
        self.table.read().file.clone()
    }

    #[must_use]
    pub fn version(&self) -> DataVersion {
        self.table.read().file.data_version
    }

    /// Creates or replaces a topic. Returns the number of that, as [`Created`] has it.
    pub fn put(&self, config: TopicConfig, now: Millis) -> u64 {
        let name = Arc::clone(&config.topic_name);
        let mut table = self.table.write();
        let number = match table.by_name.contains_key(&name) {
            true => self.created.note_change(),
            false => self.created.note(&name),
        };
        table.put(Arc::clone(&name), Arc::new(config));
        table.changed_at(now);
        drop(table);
        self.note(name);
        number
    }

    /// Removes a topic. Returns the number of that, as [`Created`] has it; 0 if there was none.
    pub fn remove(&self, topic: &str, now: Millis) -> u64 {
        let mut table = self.table.write();
        let Some(name) = table.remove(topic) else { return 0 };
        let number = self.created.note_change();
        table.changed_at(now);
        drop(table);
        self.note(name);
        number
    }

    /// Marks those topics as ordered that are here; none is ever unmarked. Spec `broker.md` 9.5.
    pub fn set_ordered<'a>(&self, topics: impl Iterator<Item = &'a String>, now: Millis) {
        for topic in topics {
            if let Some(known) = self.find(topic).filter(|known| !known.order) {
                tracing::info!(topic, "the topic is ordered");
                self.put(TopicConfig { order: true, ..(*known).clone() }, now);
            }
        }
    }

    /// The topic of a send, created from its template if need and permission be.
    pub fn find_or_inherit(
        &self,
        template: &Template<'_>,
        now: Millis,
    ) -> Result<Arc<TopicConfig>, Error> {
        if let Some(found) = self.find(template.topic) {
            return Ok(found);
        }
        if let Some(config) = self.inherited(template) {
            return Ok(self.create(config, now));
        }
        if template.topic.starts_with(names::RETRY_PREFIX) {
            return Ok(self.find_or_create(template.topic, 1, template.unit_mode, now));
        }
        Err(Error::NoSuchTopic { topic: template.topic.to_owned() })
    }

    /// A topic that the broker itself needs: a group's retry or dead-letter topic.
    pub fn find_or_create(
        &self,
        topic: &str,
        queue_count: i32,
        unit_mode: bool,
        now: Millis,
    ) -> Arc<TopicConfig> {
        self.find(topic).unwrap_or_else(|| {
            let topic_sys_flag = sys_flag(topic, unit_mode);
            let config = TopicConfig::new(topic, queue_count, Perm::READ_WRITE);
            self.create(TopicConfig { topic_sys_flag, ..config }, now)
        })
    }

    #[must_use]
    pub fn has_changed(&self) -> bool {
        self.has_changed.load(Ordering::Acquire)
    }

    /// Names whose configuration changed since the last call.
    #[must_use]
    pub fn take_changed(&self) -> Vec<Arc<str>> {
        self.has_changed.store(false, Ordering::Release);
        std::mem::take(&mut *self.changed.lock())
    }

    /// The topics that changed since the last call, as they are now; deleted ones are left out.
    #[must_use]
    pub fn changed_topics(&self) -> BTreeMap<Arc<str>, Arc<TopicConfig>> {
        let changed = self.take_changed();
        let table = self.table.read();
        let find = |name: Arc<str>| Some((Arc::clone(&name), table.by_name.get(&name)?.clone()));
        changed.into_iter().filter_map(find).collect()
    }

    fn note(&self, name: Arc<str>) {
        self.changed.lock().push(name);
        self.has_changed.store(true, Ordering::Release);
    }

    fn inherited(&self, template: &Template<'_>) -> Option<TopicConfig> {
        let default = self.find(template.default_topic)?;
        let may_inherit = self.auto_create || template.default_topic != names::AUTO_CREATE_TOPIC;
        if !may_inherit || !default.perm.has(Perm::INHERIT) {
            return None;
        }
        let queue_count = template.queue_count.min(default.write_queue_count).max(0);
        Some(TopicConfig {
            topic_filter_type: default.topic_filter_type.clone(),
            topic_sys_flag: sys_flag(template.topic, template.unit_mode),
            ..TopicConfig::new(template.topic, queue_count, default.perm.without(Perm::INHERIT))
        })
    }

    /// Two sends may create the same topic at once: the first one's configuration stays.
    fn create(&self, config: TopicConfig, now: Millis) -> Arc<TopicConfig> {
        let mut table = self.table.write();
        if let Some(found) = table.by_name.get(&config.topic_name) {
            return Arc::clone(found);
        }
        let config = Arc::new(config);
        self.created.note(&config.topic_name);
        table.put(Arc::clone(&config.topic_name), Arc::clone(&config));
        table.changed_at(now);
        drop(table);
        tracing::info!(
            topic = &*config.topic_name,
            queues = config.write_queue_count,
            "topic created"
        );
        self.note(Arc::clone(&config.topic_name));
        config
    }
}

fn sys_flag(topic: &str, unit_mode: bool) -> i32 {
    match (unit_mode, topic.starts_with(names::RETRY_PREFIX)) {
        (false, _) => 0,
        (true, false) => UNIT,
        (true, true) => UNIT_SUB,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topics(auto_create: bool) -> Topics {
        let default = TopicConfig::new(names::AUTO_CREATE_TOPIC, 8, Perm(7));
        Topics::new(vec![default], TopicTable::default(), auto_create, Arc::default())
    }

    fn template(topic: &str) -> Template<'_> {
        let default_topic = names::AUTO_CREATE_TOPIC;
        Template { topic, default_topic, queue_count: 4, unit_mode: false }
    }

    #[test]
    fn a_send_creates_its_topic_with_the_fewer_of_both_queue_counts() {
        let topics = topics(true);
        assert_eq!(topics.take_changed().len(), 1, "at the start all is new");
        let created = topics.find_or_inherit(&template("t"), 5).unwrap();
        assert_eq!((created.write_queue_count, created.perm), (4, Perm::READ_WRITE));
        assert_eq!(topics.version(), DataVersion { counter: 1, state_version: 0, timestamp: 5 });
        assert_eq!(topics.take_changed(), [Arc::from("t")]);
        assert!(topics.take_changed().is_empty());
    }

    #[test]
    fn without_automatic_creation_only_retry_topics_are_made() {
        let topics = topics(false);
        let refused = topics.find_or_inherit(&template("t"), 5);
        assert!(matches!(refused, Err(Error::NoSuchTopic { .. })));
        let retry = topics.find_or_inherit(&template("%RETRY%g"), 5).unwrap();
        assert_eq!(retry.write_queue_count, 1);
    }

    #[test]
    fn what_the_file_says_of_a_system_topic_wins() {
        let mut file = TopicTable::default();
        let changed = TopicConfig::new("S", 2, Perm::READ);
        file.topic_config_table.insert("S".into(), changed.clone().into());
        let system = vec![TopicConfig::new("S", 8, Perm(7))];
        let topics = Topics::new(system, file, true, Arc::default());
        assert_eq!(*topics.find("S").unwrap(), changed);
    }
}
