//! The broker's own files in `config/`: what they are called, what they hold, when they are
//! written. Shapes: spec `json-quirks.md` 3.

use apogee_store::Documents;
use apogee_types::json;
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
    /// Writes topics and groups that changed. A topic that an operator created is acknowledged
    /// only after this.
    pub fn persist_tables(&self) -> Result<(), Error> {
        let mut written = self.written.lock();
        let (topics, groups) = (self.topics.version(), self.groups.version());
        if written.topics != Some(topics) {
            write(&self.documents, TOPICS, &self.topics.table())?;
            written.topics = Some(topics);
        }
        if written.groups != Some(groups) {
            write(&self.documents, GROUPS, &self.groups.table())?;
            written.groups = Some(groups);
        }
        Ok(())
    }

    /// Writes how far groups and delay levels have come, if they moved.
    pub fn persist_progress(&self) -> Result<(), Error> {
        let offsets = self.offsets.take_dirty();
        let delays = self.delays.snapshot();
        let mut written = self.written.lock();
        let delays_moved = written.delays.as_ref() != Some(&delays.offset_table);
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
            written.delays = Some(delays.offset_table);
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
