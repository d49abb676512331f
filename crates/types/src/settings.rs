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
pub use value::{Addresses, BrokerRole, DelayLevels, FlushMode, Hours, Value};

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
    /// The least and the largest number, for a setting that is one.
    pub range: Option<Range>,
}

/// The least and the largest number that is allowed.
pub type Range = (i64, i64);

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
    Invalid { key: &'static str, text: String, allowed: String },
}

/// Declares a table. A number has the range that stands behind its type, else that of the type.
/// `important` marks what `-m` shows.
macro_rules! settings {
    (@is) => { false };
    (@is important) => { true };
    (@range $type:ty) => { <$type as $crate::settings::Value>::RANGE };
    (@range $type:ty, $low:literal $high:tt) => { Some(($low, $high)) };
    (
        $(#[doc = $about:literal])+
        $name:ident { $(
            $(#[doc = $doc:literal])+
            $key:literal $field:ident: $type:ty $([$low:literal..=$high:tt])? =
                $default:expr, $when:ident $($important:ident)?;
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
                range: settings!(@range $type $(, $low $high)?),
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
                    $( $key => {
                        let range = settings!(@range $type $(, $low $high)?);
                        self.$field = $crate::settings::value::parse($key, text, range)?;
                    } )+
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
        assert_eq!(error.to_string(), "listenPort = 123456: must be a port, 1 to 65535");
        let error = StoreSettings::default().set("maxIndexNum", "1").unwrap_err();
        let allowed = "maxIndexNum = 1: must be a whole number, 2 to 100000000";
        assert_eq!(error.to_string(), allowed);
    }

    #[test]
    fn a_number_is_in_its_range_or_an_error() {
        fn check<S: Settings + Default>() {
            for key in S::default().keys() {
                let Some((low, high)) = key.range else { continue };
                let set = |number: i128| S::default().set(key.name, &number.to_string());
                for allowed in [low, high] {
                    assert_eq!(set(allowed.into()), Ok(()), "{key} = {allowed}");
                }
                for beyond in [i128::from(low) - 1, i128::from(high) + 1] {
                    assert!(set(beyond).is_err(), "{key} = {beyond}");
                }
            }
        }
        check::<BrokerSettings>();
        check::<StoreSettings>();
        check::<NamesrvSettings>();
        check::<NetSettings>();
    }
}
