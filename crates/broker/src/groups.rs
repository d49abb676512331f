//! The subscription groups of this broker: their configuration, one owner.

use std::collections::BTreeMap;
use std::sync::Arc;

use apogee_types::Millis;
use apogee_types::config::{DataVersion, GroupConfig};
use apogee_types::names;
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

use crate::created::Created;
use crate::error::Error;

/// The groups that exist from the start. Spec `messages.md` 8.1.
const SYSTEM_GROUPS: &[&str] = &[
    names::TOOLS_GROUP,
    "FILTERSRV_CONSUMER",
    "SELF_TEST_C_GROUP",
    "CID_ONS-HTTP-PROXY",
    "CID_ONSAPI_PULL",
    "CID_ONSAPI_PERMISSION",
    "CID_ONSAPI_OWNER",
    "CID_RMQ_SYS_TRANS",
];

/// The table as `subscriptionGroup.json` holds it.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GroupTable {
    pub data_version: DataVersion,
    /// What a group may not do with a topic, as bits; bit 2 set: not read.
    pub forbidden_table: BTreeMap<Arc<str>, BTreeMap<Arc<str>, i32>>,
    pub subscription_group_table: BTreeMap<Arc<str>, Arc<GroupConfig>>,
}

/// Groups by name.
pub struct Groups {
    table: RwLock<GroupTable>,
    /// `autoCreateSubscriptionGroup`.
    auto_create: bool,
    created: Arc<Created>,
}

impl Groups {
    #[must_use]
    pub fn new(file: GroupTable, auto_create: bool, created: Arc<Created>) -> Self {
        let mut table = file;
        for name in SYSTEM_GROUPS {
            let config =
                || GroupConfig { consume_broadcast_enable: true, ..GroupConfig::new(name) };
            table.subscription_group_table.entry((*name).into()).or_insert_with(|| config().into());
        }
        Self { table: RwLock::new(table), auto_create, created }
    }

    #[must_use]
    pub fn find(&self, group: &str) -> Option<Arc<GroupConfig>> {
        self.table.read().subscription_group_table.get(group).cloned()
    }

    /// The group's configuration, created if that is allowed.
    pub fn find_or_create(&self, group: &str, now: Millis) -> Result<Arc<GroupConfig>, Error> {
        if let Some(found) = self.find(group) {
            return Ok(found);
        }
        let refused = || Error::NoSuchGroup { group: group.to_owned() };
        if !self.auto_create && !names::is_system_group(group) {
            return Err(refused());
        }
        names::check_group(group).map_err(|_| refused())?;
        let mut table = self.table.write();
        let name: Arc<str> = group.into();
        if let Some(found) = table.subscription_group_table.get(&name) {
            return Ok(Arc::clone(found));
        }
        let config = Arc::new(GroupConfig::new(group));
        self.created.note(&name);
        table.subscription_group_table.insert(name, Arc::clone(&config));
        table.data_version = table.data_version.next(now);
        tracing::info!(group, "subscription group created");
        Ok(config)
    }

    /// Creates or replaces a group. Returns the number of that, as [`Created`] has it.
    pub fn put(&self, config: GroupConfig, now: Millis) -> u64 {
        let mut table = self.table.write();
        let name = Arc::clone(&config.group_name);
        let number = match table.subscription_group_table.contains_key(&name) {
            true => self.created.note_change(),
            false => self.created.note(&name),
        };
        table.subscription_group_table.insert(name, config.into());
        table.data_version = table.data_version.next(now);
        number
    }

    /// Removes a group. Returns the number of that, as [`Created`] has it; 0 if there was none.
    pub fn remove(&self, group: &str, now: Millis) -> u64 {
        let mut table = self.table.write();
        table.forbidden_table.remove(group);
        if table.subscription_group_table.remove(group).is_none() {
            return 0;
        }
        table.data_version = table.data_version.next(now);
        self.created.note_change()
    }

    /// An operator forbade the group to read the topic.
    #[must_use]
    pub fn is_reading_forbidden(&self, group: &str, topic: &str) -> bool {
        const READING: i32 = 1 << 2;
        let table = self.table.read();
        let topics = table.forbidden_table.get(group);
        topics.and_then(|topics| topics.get(topic)).is_some_and(|bits| bits & READING != 0)
    }

    #[must_use]
    pub fn table(&self) -> GroupTable {
        self.table.read().clone()
    }

    #[must_use]
    pub fn version(&self) -> DataVersion {
        self.table.read().data_version
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_created_on_first_use_where_that_is_allowed() {
        let groups = Groups::new(GroupTable::default(), true, Arc::default());
        assert_eq!(groups.find_or_create("g", 1).unwrap().retry_max_times, 16);
        assert!(groups.find("g").is_some());
        let strict = Groups::new(GroupTable::default(), false, Arc::default());
        assert!(matches!(strict.find_or_create("g", 1), Err(Error::NoSuchGroup { .. })));
        assert!(strict.find_or_create(names::TOOLS_GROUP, 1).is_ok());
    }
}
