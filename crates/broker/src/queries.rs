//! Looking up messages by key and by id.

use apogee_types::{LogOffset, Millis};
use bytes::Bytes;

use crate::broker::Broker;
use crate::error::Error;

/// A query by key. Spec `store.md` 4.
#[derive(Debug, Clone, Copy)]
pub struct Query<'a> {
    pub topic: &'a str,
    pub key: &'a str,
    pub max_count: usize,
    pub from_ms: Millis,
    pub to_ms: Millis,
}

impl Broker {
    /// The records that may carry the key, oldest first; keys that merely hash alike are among
    /// them, as upstream's clients expect.
    pub fn query(&self, query: &Query<'_>) -> Result<Vec<Bytes>, Error> {
        let max_count = query.max_count.min(self.settings.max_msgs_num_batch as usize);
        let mut found =
            self.store.query_by_key(query.topic, query.key, max_count, query.from_ms, query.to_ms);
        found.sort_unstable();
        let mut records = Vec::with_capacity(found.len());
        for at in found {
            records.extend(self.store.record_at(at)?);
        }
        Ok(records)
    }

    /// The record at a place in the log.
    pub fn view(&self, at: LogOffset) -> Result<Bytes, Error> {
        self.store.record_at(at)?.ok_or(Error::NoSuchMessage { at: at.0 })
    }
}
