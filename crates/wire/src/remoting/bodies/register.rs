//! What a broker registers with a name server: JSON, or one deflated stream of
//!
//! ```text
//!  i32 n, DataVersion as JSON
//!  i32 count, count x { i32 n, `TopicA 8 8 6 SINGLE_TAG {"attribute":"value"}` }
//!  i32 n, filter servers as a JSON list
//!  i32 count, count x { i32 n, queue mapping as JSON }      from 5.0 on
//! ```

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::Arc;

use apogee_types::config::{DataVersion, Perm, TopicConfig};
use apogee_types::json::{self, JsonError};
use apogee_types::limits::REGISTER_BODY_LEN_MAX;
use serde_json::Value;

use super::TopicConfigAndMappingSerializeWrapper;

/// From this `version` on the deflated form ends with the queue mappings (5.0.0).
const VERSION_QUEUE_MAPPINGS: i32 = 413;

/// Before this `version` the body is the bare table of topics (3.0.11).
const VERSION_REGISTER_BODY: i32 = 37;

bodies! {
    /// 103.
    RegisterBrokerBody {
        filter_server_list: Vec<String>,
        topic_config_serialize_wrapper: TopicConfigAndMappingSerializeWrapper,
    }
}

/// Why a registration cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RegisterBodyError {
    #[error("the registration is no JSON: {0}")]
    Json(#[from] JsonError),
    #[error("the registration cannot be inflated: {0}")]
    Inflate(#[from] std::io::Error),
    #[error("the registration inflates to more than {0} bytes")]
    TooLong(usize),
    #[error("the inflated registration ends within {0}")]
    Truncated(&'static str),
    #[error("`{0}` is no topic of a deflated registration")]
    Topic(String),
}

impl RegisterBrokerBody {
    /// Reads what a broker of this `version` sent; an empty body is an empty registration.
    pub fn read(body: &[u8], compressed: bool, version: i32) -> Result<Self, RegisterBodyError> {
        if body.is_empty() {
            return Ok(Self::default());
        }
        if version < VERSION_REGISTER_BODY {
            let topic_config_serialize_wrapper = json::read(body)?;
            return Ok(Self { topic_config_serialize_wrapper, ..Self::default() });
        }
        // 5.x says "not compressed" of bodies that it has compressed: look at the bytes.
        if compressed || body.first() == Some(&0x78) {
            Self::inflate(body, version)
        } else {
            Ok(json::read(body)?)
        }
    }

    /// Writes the deflated form for a name server of 5.x.
    #[must_use]
    pub fn deflate(&self) -> Vec<u8> {
        let wrapper = &self.topic_config_serialize_wrapper;
        let mut out = Vec::new();
        put_bytes(&mut out, &json::write(&wrapper.data_version));
        put_len(&mut out, wrapper.topic_config_table.len());
        for topic in wrapper.topic_config_table.values() {
            put_bytes(&mut out, topic_text(topic).as_bytes());
        }
        put_bytes(&mut out, &json::write(&self.filter_server_list));
        put_len(&mut out, wrapper.topic_queue_mapping_info_map.len());
        for mapping in wrapper.topic_queue_mapping_info_map.values() {
            put_bytes(&mut out, &json::write(mapping));
        }
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&out).and_then(|()| encoder.finish()).expect("a Vec takes everything")
    }

    fn inflate(body: &[u8], version: i32) -> Result<Self, RegisterBodyError> {
        let mut bytes = Vec::new();
        let limit = REGISTER_BODY_LEN_MAX as u64 + 1;
        flate2::read::ZlibDecoder::new(body).take(limit).read_to_end(&mut bytes)?;
        if REGISTER_BODY_LEN_MAX < bytes.len() {
            return Err(RegisterBodyError::TooLong(REGISTER_BODY_LEN_MAX));
        }
        let mut reader = Reader(&bytes);
        let data_version: DataVersion = json::read(reader.bytes("the version")?)?;
        let mut topic_config_table = BTreeMap::new();
        for _ in 0..reader.len("the count of topics")? {
            let topic = Arc::new(parse_topic(reader.bytes("a topic")?)?);
            topic_config_table.insert(topic.topic_name.clone(), topic);
        }
        let filter_server_list = json::read(reader.bytes("the filter servers")?)?;
        let mut topic_queue_mapping_info_map = BTreeMap::new();
        if VERSION_QUEUE_MAPPINGS <= version {
            for _ in 0..reader.len("the count of mappings")? {
                let mapping: Value = json::read(reader.bytes("a mapping")?)?;
                let topic = mapping["topic"].as_str().unwrap_or_default().into();
                topic_queue_mapping_info_map.insert(topic, Arc::new(mapping));
            }
        }
        let topic_config_serialize_wrapper = TopicConfigAndMappingSerializeWrapper {
            data_version,
            topic_config_table,
            topic_queue_mapping_info_map,
            ..Default::default()
        };
        Ok(Self { filter_server_list, topic_config_serialize_wrapper })
    }
}

fn topic_text(topic: &TopicConfig) -> String {
    let TopicConfig { topic_name, read_queue_count, write_queue_count, perm, .. } = topic;
    let filter_type = &topic.topic_filter_type;
    let counts = format!("{read_queue_count} {write_queue_count}");
    let attributes = serde_json::to_string(&topic.attributes).expect("a map of texts");
    format!("{topic_name} {counts} {} {filter_type} {attributes}", perm.0)
}

fn parse_topic(bytes: &[u8]) -> Result<TopicConfig, RegisterBodyError> {
    let text = std::str::from_utf8(bytes).map_err(|_| JsonError::NotUtf8)?;
    let mut parts = text.splitn(6, ' ');
    let mut topic = || {
        Some(TopicConfig {
            topic_name: parts.next()?.into(),
            read_queue_count: parts.next()?.parse().ok()?,
            write_queue_count: parts.next()?.parse().ok()?,
            perm: Perm(parts.next()?.parse().ok()?),
            topic_filter_type: parts.next()?.to_owned(),
            ..TopicConfig::default()
        })
    };
    let mut topic = topic().ok_or_else(|| RegisterBodyError::Topic(text.to_owned()))?;
    if let Some(attributes) = parts.next() {
        topic.attributes = json::read(attributes.as_bytes())?;
    }
    Ok(topic)
}

fn put_len(out: &mut Vec<u8>, len: usize) {
    out.extend_from_slice(&(len as u32).to_be_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_len(out, bytes.len());
    out.extend_from_slice(bytes);
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn len(&mut self, what: &'static str) -> Result<usize, RegisterBodyError> {
        let (len, rest) = self.0.split_first_chunk().ok_or(RegisterBodyError::Truncated(what))?;
        self.0 = rest;
        Ok(u32::from_be_bytes(*len) as usize)
    }

    fn bytes(&mut self, what: &'static str) -> Result<&'a [u8], RegisterBodyError> {
        let len = self.len(what)?;
        let (taken, rest) =
            self.0.split_at_checked(len).ok_or(RegisterBodyError::Truncated(what))?;
        self.0 = rest;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deflated_form_reads_back() {
        let mut topic = TopicConfig::new("TopicA", 8, Perm::READ_WRITE);
        topic.attributes.insert("message.type".into(), "FIFO x".into());
        let mut body = RegisterBrokerBody::default();
        let wrapper = &mut body.topic_config_serialize_wrapper;
        wrapper.data_version = DataVersion { counter: 3, state_version: 1, timestamp: 17 };
        wrapper.topic_config_table.insert("TopicA".into(), Arc::new(topic));
        let mapping = serde_json::json!({"topic": "TopicS", "totalQueues": 2});
        wrapper.topic_queue_mapping_info_map.insert("TopicS".into(), Arc::new(mapping));
        let bytes = body.deflate();
        assert_eq!(RegisterBrokerBody::read(&bytes, true, 513).unwrap(), body);
        assert_eq!(RegisterBrokerBody::read(&bytes, false, 513).unwrap(), body);
        for cut in 1..bytes.len() {
            assert!(RegisterBrokerBody::read(&bytes[..cut], true, 513).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn a_registration_cannot_inflate_without_end() {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        let zeros = vec![0; 1 << 20];
        for _ in 0..=REGISTER_BODY_LEN_MAX >> 20 {
            encoder.write_all(&zeros).unwrap();
        }
        let bomb = encoder.finish().unwrap();
        let error = RegisterBrokerBody::read(&bomb, true, 513).unwrap_err();
        assert!(matches!(error, RegisterBodyError::TooLong(_)), "{error}");
    }
}
