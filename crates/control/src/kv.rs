//! The name server's key-value configuration, and its file `kvConfig.json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The namespace of order topics: topic -> `broker-a:4;broker-b:4`.
pub const ORDER_TOPIC_CONFIG: &str = "ORDER_TOPIC_CONFIG";

/// Values by namespace and key; the file has the same shape.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct KvConfig {
    config_table: BTreeMap<String, BTreeMap<String, String>>,
}

impl KvConfig {
    pub fn put(&mut self, namespace: &str, key: &str, value: &str) {
        let table = self.config_table.entry(namespace.to_owned()).or_default();
        table.insert(key.to_owned(), value.to_owned());
    }

    #[must_use]
    pub fn find(&self, namespace: &str, key: &str) -> Option<&str> {
        self.config_table.get(namespace)?.get(key).map(String::as_str)
    }

    pub fn remove(&mut self, namespace: &str, key: &str) {
        if let Some(table) = self.config_table.get_mut(namespace) {
            table.remove(key);
        }
    }

    #[must_use]
    pub fn namespace(&self, namespace: &str) -> Option<&BTreeMap<String, String>> {
        self.config_table.get(namespace)
    }
}

#[cfg(test)]
mod tests {
    use apogee_types::json;

    use super::*;

    #[test]
    fn the_table_has_the_form_of_upstreams_file() {
        let mut config = KvConfig::default();
        config.put(ORDER_TOPIC_CONFIG, "TopicA", "broker-a:4");
        let text = br#"{"configTable":{"ORDER_TOPIC_CONFIG":{"TopicA":"broker-a:4"}}}"#;
        assert_eq!(json::write_standard(&config), text);
        assert_eq!(json::read(text), Ok(config));
    }

    #[test]
    fn a_deleted_key_is_gone_and_its_namespace_stays() {
        let mut config = KvConfig::default();
        config.put("n", "k", "v");
        assert_eq!(config.find("n", "k"), Some("v"));
        config.remove("n", "k");
        assert_eq!(config.find("n", "k"), None);
        assert!(config.namespace("n").is_some_and(BTreeMap::is_empty));
        assert_eq!(config.namespace("m"), None);
    }
}
