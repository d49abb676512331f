//! A key with its text, to the tables of a role: it is set, or there is something to say about it.

use super::keys::{Known, known, nearest};
use super::{BrokerSettings, NamesrvSettings, NetSettings, Settings, StoreSettings};

/// What became of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Assigned {
    /// It has its value, or has no effect and was given as if it had not been given.
    Quietly,
    /// It does not do what it says, and all is well.
    Note(String),
    /// The operator should change something.
    Warning(String),
    /// The value cannot be; such a process must not start.
    Error(String),
}

/// Sets `key` in the first of the tables that has it.
pub fn assign(tables: &mut [&mut dyn Settings], key: &str, text: &str) -> Assigned {
    match tables.iter_mut().find(|table| table.get(key).is_some()) {
        Some(table) => match table.set(key, text) {
            Ok(()) => Assigned::Quietly,
            Err(error) => Assigned::Error(error.to_string()),
        },
        None => explain(key, text.trim()),
    }
}

/// What a key does that none of the tables has.
fn explain(key: &str, text: &str) -> Assigned {
    match known(key) {
        Some(Known::Ignored(reason)) => Assigned::Note(format!("{key} changes nothing: {reason}")),
        Some(Known::Renamed { key: now, note }) => {
            Assigned::Warning(format!("{key} is not a key; {now} is the one that counts: {note}"))
        }
        Some(Known::Missing { default } | Known::Refused { default, .. })
            if text.eq_ignore_ascii_case(default) =>
        {
            Assigned::Quietly
        }
        Some(Known::Missing { default }) => {
            Assigned::Warning(format!("{key} = {text} has no effect yet; it is as if {default}"))
        }
        Some(Known::Refused { instead, .. }) => {
            Assigned::Error(format!("{key} = {text}: {instead}"))
        }
        None if is_declared(key) => Assigned::Note(format!("{key} is not a setting of this role")),
        None => {
            let hint = nearest(key).map_or(String::new(), |key| format!("; did you mean {key}?"));
            Assigned::Warning(format!("unknown key {key}{hint}"))
        }
    }
}

/// Whether a setting of any role has this key.
fn is_declared(key: &str) -> bool {
    [BrokerSettings::KEYS, StoreSettings::KEYS, NetSettings::KEYS, NamesrvSettings::KEYS]
        .into_iter()
        .flatten()
        .any(|declared| declared.name == key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_set_or_explained() {
        let (mut broker, mut store) = (BrokerSettings::default(), StoreSettings::default());
        let mut set = |key, text| assign(&mut [&mut broker, &mut store], key, text);
        assert_eq!(set("listenPort", " 1 "), Assigned::Quietly);
        assert_eq!(set("storeType", "default"), Assigned::Quietly);
        assert!(matches!(set("storeType", "defaultRocksDB"), Assigned::Error(_)));
        assert!(matches!(set("flushDiskType", "SYNC"), Assigned::Error(_)));
        assert!(matches!(set("orderMessageEnable", "true"), Assigned::Note(_)));
        assert!(matches!(set("nameServerAddr", "a:1"), Assigned::Warning(_)));
        let unknown = "unknown key flushDiskTyp; did you mean flushDiskType?";
        assert_eq!(set("flushDiskTyp", "x"), Assigned::Warning(unknown.into()));
        assert_eq!(broker.listen_port, 1);
    }
}
