//! Settings as tables: upstream's key, our field, type, default, doc, and when a change counts.
//!
//! One entry is all there is to a setting. From it derive the struct with its defaults, reading and
//! writing by key, `getBrokerConfig`, `-p` and `-m`, the manual, and "did you mean".

use std::fmt;
use std::path::PathBuf;

mod advertised;
mod assign;
mod broker;
pub mod file;
mod keys;
mod namesrv;
mod net;
mod store;
mod value;

pub use advertised::AdvertisedAddresses;
pub use assign::{Assigned, assign};
pub use broker::BrokerSettings;
pub use namesrv::NamesrvSettings;
pub use net::NetSettings;
pub use store::StoreSettings;
pub use value::{BrokerRole, FlushMode, Hours, Value};

/// When a changed value takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    Live,
    AtRestart,
}

/// What a table says about a setting besides its value.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// As Apache RocketMQ writes it.
    pub name: &'static str,
    pub doc: &'static str,
    pub when: When,
    /// Shown by `-m`.
    pub important: bool,
}

/// A table of settings. Each type also lists its keys as `KEYS`.
pub trait Settings {
    fn keys(&self) -> &'static [Key];

    /// The text of a value, as a file would hold it.
    fn get(&self, key: &str) -> Option<String>;

    fn set(&mut self, key: &str, text: &str) -> Result<(), SettingError>;

    /// Every setting with its text, in the order of the table.
    fn rows(&self) -> Vec<(&'static Key, String)> {
        self.keys().iter().filter_map(|key| Some((key, self.get(key.name)?))).collect()
    }
}

/// Why a setting was not set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    #[error("no setting is called `{key}`")]
    Unknown { key: String },
    #[error("{key} = {text}: must be {allowed}")]
    Invalid { key: &'static str, text: String, allowed: &'static str },
}

/// Declares a table. `important` marks what `-m` shows.
macro_rules! settings {
    (@is) => { false };
    (@is important) => { true };
    (
        $(#[doc = $about:literal])+
        $name:ident { $(
            $(#[doc = $doc:literal])+
            $key:literal $field:ident: $type:ty = $default:expr, $when:ident $($important:ident)?;
        )+ }
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name { $( $(#[doc = $doc])+ pub $field: $type, )+ }

        impl Default for $name {
            fn default() -> Self {
                Self { $( $field: $default, )+ }
            }
        }

        impl $name {
            pub const KEYS: &'static [$crate::settings::Key] = &[ $( $crate::settings::Key {
                name: $key,
                doc: concat!($($doc),+),
                when: $crate::settings::When::$when,
                important: settings!(@is $($important)?),
            } ),+ ];
        }

        impl $crate::settings::Settings for $name {
            fn keys(&self) -> &'static [$crate::settings::Key] {
                Self::KEYS
            }

            fn get(&self, key: &str) -> Option<String> {
                match key {
                    $( $key => Some($crate::settings::Value::text(&self.$field)), )+
                    _ => None,
                }
            }

            fn set(&mut self, key: &str, text: &str) -> Result<(), $crate::settings::SettingError> {
                match key {
                    $( $key => self.$field = $crate::settings::value::parse($key, text)?, )+
                    _ => return Err($crate::settings::SettingError::Unknown { key: key.into() }),
                }
                Ok(())
            }
        }
    };
}
use settings;

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl StoreSettings {
    /// Where the segments of the commit log lie.
    #[must_use]
    pub fn commit_log_dir(&self) -> PathBuf {
        if self.store_path_commit_log.is_empty() {
            PathBuf::from(&self.store_path_root_dir).join("commitlog")
        } else {
            PathBuf::from(&self.store_path_commit_log)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_reads_back_as_itself() {
        fn check<S: Settings + Default + PartialEq + fmt::Debug>() {
            let mut copy = S::default();
            for (key, text) in S::default().rows() {
                copy.set(key.name, &text).unwrap_or_else(|error| panic!("{key}: {error}"));
                assert!(key.doc.trim().ends_with('.'), "{key}");
            }
            assert_eq!(copy, S::default());
        }
        check::<BrokerSettings>();
        check::<StoreSettings>();
        check::<NamesrvSettings>();
        check::<NetSettings>();
    }

    #[test]
    fn a_bad_value_says_what_is_allowed() {
        let error = StoreSettings::default().set("flushDiskType", "SYNC").unwrap_err();
        assert_eq!(error.to_string(), "flushDiskType = SYNC: must be ASYNC_FLUSH or SYNC_FLUSH");
        let error = BrokerSettings::default().set("listenPort", "123456").unwrap_err();
        assert_eq!(error.to_string(), "listenPort = 123456: must be a port, 0 to 65535");
    }
}
