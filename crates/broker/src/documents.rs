//! The broker's own files in `config/`: what they are called, what they hold, when they are
//! written. Shapes: spec `json-quirks.md` 3.

use std::collections::BTreeMap;

use apogee_store::Documents;
use apogee_types::config::DataVersion;
use apogee_types::json;
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::broker::Broker;
use crate::delay::DelayTable;
use crate::error::Error;
use crate::groups::GroupTable;
use crate::offsets::OffsetTable;
use crate::topics::TopicTable;

const TOPICS: &str = "topics.json";
const GROUPS: &str = "subscriptionGroup.json";
const OFFSETS: &str = "consumerOffset.json";
const DELAYS: &str = "delayOffset.json";

/// What the files held at start.
#[derive(Debug, Default)]
pub struct Loaded {
    pub topics: TopicTable,
    pub groups: GroupTable,
    pub offsets: OffsetTable,
    pub delays: DelayTable,
}

/// What was written last, so that only changes are. Each lock is held while its files are written.
#[derive(Debug, Default)]
pub(crate) struct Written {
    tables: Mutex<Tables>,
    delays: Mutex<Option<BTreeMap<i32, i64>>>,
}

#[derive(Debug, Default)]
struct Tables {
    topics: Option<DataVersion>,
    groups: Option<DataVersion>,
}

impl Loaded {
    /// Reads all files. A file that cannot be read is an error, unless its `.bak` can: starting
    /// without the offsets would deliver everything again.
    pub fn read(documents: &Documents) -> Result<Self, Error> {
        Ok(Self {
            topics: read(documents, TOPICS)?,
            groups: read(documents, GROUPS)?,
            offsets: read(documents, OFFSETS)?,
            delays: read(documents, DELAYS)?,
        })
    }
}

impl Broker {
    /// Writes topics and groups that changed. Who created one, by a request for it or by sending,
    /// is answered only after this.
    pub fn persist_tables(&self) -> Result<(), Error> {
        let mut written = self.written.tables.lock();
        // What comes from now on may be missed.
        let created = self.created.last();
        let (topics, groups) = (self.topics.version(), self.groups.version());
        if written.topics != Some(topics) {
            write(&self.documents, TOPICS, &self.topics.table())?;
            written.topics = Some(topics);
        }
        if written.groups != Some(groups) {
            write(&self.documents, GROUPS, &self.groups.table())?;
            written.groups = Some(groups);
        }
        self.created.written(created);
        Ok(())
    }

    /// Writes how far groups and delay levels have come, if they moved.
    pub fn persist_progress(&self) -> Result<(), Error> {
        let offsets = self.offsets.take_dirty();
        let has_moved = offsets.is_some();
        let written = self.write_progress(offsets);
        if written.is_err() && has_moved {
            self.offsets.mark_dirty();
        }
        written
    }

    fn write_progress(&self, offsets: Option<OffsetTable>) -> Result<(), Error> {
        let mut written = self.written.delays.lock();
        let delays = self.delays.snapshot();
        let delays_moved = written.as_ref() != Some(&delays.offset_table);
        if offsets.is_some() || delays_moved {
            // They must not say of a message that it was delivered or read while a power cut can
            // still take it: a delayed message would be lost, and a group pass over others that
            // get the same offsets.
            self.store.flush_all()?;
        }
        if let Some(offsets) = offsets {
            write(&self.documents, OFFSETS, &offsets)?;
        }
        if delays_moved {
            write(&self.documents, DELAYS, &delays)?;
            *written = Some(delays.offset_table);
        }
        Ok(())
    }
}

fn read<T: DeserializeOwned + Default>(documents: &Documents, name: &str) -> Result<T, Error> {
    let parse = |text: &str| json::read(text.as_bytes()).map_err(|error| error.to_string());
    Ok(documents.read(name, parse)?.unwrap_or_default())
}

fn write<T: Serialize>(documents: &Documents, name: &str, value: &T) -> Result<(), Error> {
    let text = serde_json::to_string_pretty(value).expect("tables of texts and numbers");
    Ok(documents.write(name, text.as_bytes())?)
}
