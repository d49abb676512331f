//! What a setting can hold: text to value and back. Java's rules (spec `config.md` 1.2), made
//! strict.

use super::SettingError;

/// A type that a setting can have.
pub trait Value: Sized {
    /// Completes the sentence "must be ...".
    const ALLOWED: &'static str;

    fn parse(text: &str) -> Option<Self>;

    /// The text from which [`parse`](Self::parse) makes the same value.
    fn text(&self) -> String;
}

/// White space around a value is ignored, where Java would keep the default in silence.
pub(super) fn parse<V: Value>(key: &'static str, text: &str) -> Result<V, SettingError> {
    V::parse(text.trim()).ok_or_else(|| SettingError::Invalid {
        key,
        text: text.into(),
        allowed: V::ALLOWED,
    })
}

macro_rules! integers {
    ($($type:ty = $allowed:literal;)+) => { $(
        impl Value for $type {
            const ALLOWED: &'static str = $allowed;

            fn parse(text: &str) -> Option<Self> {
                text.parse().ok()
            }

            fn text(&self) -> String {
                self.to_string()
            }
        }
    )+ };
}

integers! {
    u8 = "a number from 0 to 255";
    u16 = "a port, 0 to 65535";
    i32 = "a whole number of 32 bits";
    u32 = "a whole number, 0 to 4294967295";
    i64 = "a whole number of 64 bits";
    u64 = "a whole number, 0 or more";
}

impl Value for bool {
    const ALLOWED: &'static str = "true or false";

    fn parse(text: &str) -> Option<Self> {
        [true, false].into_iter().find(|value| text.eq_ignore_ascii_case(&value.text()))
    }

    fn text(&self) -> String {
        self.to_string()
    }
}

impl Value for String {
    const ALLOWED: &'static str = "text";

    fn parse(text: &str) -> Option<Self> {
        Some(text.into())
    }

    fn text(&self) -> String {
        self.clone()
    }
}

/// What an acknowledgement of a send survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlushMode {
    /// The death of the process; the device has it within half a second.
    Async,
    /// The loss of power: acknowledged once the device has it, and nobody sees it before.
    Sync,
}

/// What a broker is within the brokers of one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BrokerRole {
    AsyncMaster,
    SyncMaster,
    Slave,
}

macro_rules! words {
    ($type:ident, $allowed:literal: $($text:literal = $variant:ident),+) => {
        impl Value for $type {
            const ALLOWED: &'static str = $allowed;

            fn parse(text: &str) -> Option<Self> {
                match text {
                    $( $text => Some(Self::$variant), )+
                    _ => None,
                }
            }

            fn text(&self) -> String {
                match self { $( Self::$variant => $text.into(), )+ }
            }
        }
    };
}

words!(FlushMode, "ASYNC_FLUSH or SYNC_FLUSH": "ASYNC_FLUSH" = Async, "SYNC_FLUSH" = Sync);
words!(BrokerRole, "ASYNC_MASTER, SYNC_MASTER or SLAVE":
    "ASYNC_MASTER" = AsyncMaster, "SYNC_MASTER" = SyncMaster, "SLAVE" = Slave);

/// Hours of the day, `04` or `03;04`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hours(pub Vec<u8>);

impl Value for Hours {
    const ALLOWED: &'static str = "hours from 00 to 23, separated by `;`";

    fn parse(text: &str) -> Option<Self> {
        let hour = |text: &str| text.parse().ok().filter(|hour| *hour < 24);
        text.split(';').filter(|part| !part.is_empty()).map(hour).collect::<Option<_>>().map(Self)
    }

    fn text(&self) -> String {
        self.0.iter().map(|hour| format!("{hour:02}")).collect::<Vec<_>>().join(";")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_what_java_accepts_or_an_error() {
        assert_eq!(parse::<u16>("listenPort", " 10911 "), Ok(10911));
        assert_eq!(parse::<bool>("k", "TRUE"), Ok(true));
        assert!(parse::<bool>("k", "yes").is_err());
        assert!(parse::<BrokerRole>("k", "sync_master").is_err());
        assert_eq!(Hours::parse("03;04"), Some(Hours(vec![3, 4])));
        assert_eq!(Hours::parse("4"), Some(Hours(vec![4])));
        assert_eq!(Hours::parse("04, 05"), None);
    }
}
